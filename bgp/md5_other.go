//go:build !linux

package bgp

import (
	"errors"
	"net/netip"

	"sluice.dev/sluice/internal/model"
)

// trySigning reports that only Linux signs segments here.
func trySigning(netip.Addr, model.Password) error { return errors.ErrUnsupported }
