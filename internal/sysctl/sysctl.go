// Package sysctl sets the kernel switches that IPVS and NetworkPolicy need and
// verifies each by reading it back: in a container /proc/sys may be read-only,
// and a write can be refused or silently bent.
package sysctl

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Setting is one switch.
type Setting struct {
	Path  string // below /proc/sys
	Value string
	Why   string // what goes wrong without it
	// VerifyOnly: another owns the switch; it is read and never written.
	VerifyOnly bool
	// AtLeast: a number that is higher than Value is right too.
	AtLeast bool
	// Module is the kernel module that has the switch; "": IPVS's, or none. It
	// is not loaded here.
	Module string
	// VitalTo is whom a node without it does not do what it is there for.
	VitalTo Purpose
}

// Purpose is something that a node is there for.
type Purpose uint8

// The purposes.
const (
	None     Purpose = iota
	Services         // are served
	Policies         // of the network are enforced
)

// Wanted are the settings of a node, after section "Sysctls" of kube-proxy's
// IPVS mode. conn_reuse_mode is only looked at: since Linux 5.9 its default is
// right, and older kernels are not supported.
func Wanted(ipv6 bool) []Setting {
	settings := []Setting{
		{Path: "net/ipv4/vs/conntrack", Value: "1", VitalTo: Services,
			Why: "IPVS connections cannot be masqueraded without it"},
		{Path: "net/ipv4/vs/expire_nodest_conn", Value: "1",
			Why: "connections to a deleted endpoint would hang instead of ending"},
		{Path: "net/ipv4/vs/expire_quiescent_template", Value: "1",
			Why: "session affinity would keep sending clients to a leaving endpoint"},
		{Path: "net/ipv4/vs/conn_reuse_mode", Value: "1", VerifyOnly: true,
			Why: "a client that uses a source port again would stay with an endpoint that has gone; 1 is the default of Linux 5.9 and later"},
		{Path: "net/ipv4/ip_forward", Value: "1", VitalTo: Services,
			Why: "packets between Services and pods are not forwarded without it"},
	}
	if ipv6 {
		settings = append(settings, Setting{
			Path: "net/ipv6/conf/all/forwarding", Value: "1", VerifyOnly: true,
			Why: "IPv6 packets between Services and pods are not forwarded without it; " +
				"it is not set here because it also stops the node from taking routes from router advertisements",
		})
	}
	return settings
}

// Outcome is what became of a setting.
type Outcome struct {
	Wrote bool  // it had not had its value
	Err   error // names it; nil: it has its value now
}

// Apply brings the settings about below root ("/proc/sys"), and returns what
// became of each. A setting that already has its value is not written.
func Apply(root string, settings []Setting) []Outcome {
	outcomes := make([]Outcome, len(settings))
	for i, s := range settings {
		wrote, err := apply(root, s)
		if err != nil {
			err = fmt.Errorf("sysctl %s=%s: %w (%s)", strings.ReplaceAll(s.Path, "/", "."), s.Value, err, s.Why)
		}
		outcomes[i] = Outcome{wrote, err}
	}
	return outcomes
}

func apply(root string, s Setting) (wrote bool, err error) {
	path := filepath.Join(root, s.Path)
	was, err := read(path)
	if errors.Is(err, fs.ErrNotExist) {
		if s.Module != "" {
			return false, fmt.Errorf("this kernel does not have it; load its module: modprobe %s", s.Module)
		}
		return false, errors.New("this kernel does not have it; is the module loaded?")
	}
	if err != nil || s.enough(was) {
		return false, err
	}
	if s.VerifyOnly {
		return false, fmt.Errorf("it is %s", was)
	}
	if err := os.WriteFile(path, []byte(s.Value), 0o644); err != nil {
		return false, fmt.Errorf("it is %s and cannot be set: %w%s", was, err, remedy(err))
	}
	now, err := read(path)
	if err != nil {
		return true, fmt.Errorf("set, but cannot be read back: %w", err)
	}
	if !s.enough(now) {
		return true, fmt.Errorf("set, but reads back as %s", now)
	}
	return true, nil
}

func read(path string) (string, error) {
	b, err := os.ReadFile(path)
	return strings.TrimSpace(string(b)), err
}
