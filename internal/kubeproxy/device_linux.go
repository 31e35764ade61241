package kubeproxy

import (
	"context"
	"errors"

	"github.com/vishvananda/netlink"
)

// RemoveDevice removes kube-ipvs0 from this network namespace, and says whether
// it was there. Addresses that another device has too stay this host's.
func RemoveDevice(context.Context) (bool, error) {
	link, err := netlink.LinkByName(Device)
	if _, none := errors.AsType[netlink.LinkNotFoundError](err); none {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, netlink.LinkDel(link)
}
