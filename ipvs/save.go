package ipvs

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"

	"sluice.dev/sluice/internal/model"
)

// WriteSaved writes a listing as the command lines that make it, byte by byte
// as ipvsadm -S does, for ipvsadm -R and our own. Style's columns and notes
// have no place here.
//
// ipvsadm leaves the connection thresholds out. With thresholds they are
// written too (-x and -y), which any ipvsadm reads.
func WriteSaved(w io.Writer, l Listing, style Style, thresholds bool) error {
	out := bufio.NewWriter(w)
	for _, s := range style.Sorted(l.Servers) {
		name := style.savedServer(s.VirtualServer)
		fmt.Fprintf(out, "-A %s -s %s%s\n", name, s.Spec.Scheduler, savedFlags(s.VirtualServerEntry))
		for _, d := range style.SortedDestinations(s.Destinations) {
			fmt.Fprintf(out, "-a %s -r %s %s -w %d%s", name, style.fullAddress(d.RealServer, s.Protocol),
				savedMethod(d.Spec.Forward), int32(d.Spec.Weight), savedTunnel(d.Spec)) // signed in the kernel
			if thresholds {
				fmt.Fprint(out, savedThresholds(d.Spec))
			}
			fmt.Fprintln(out)
		}
	}
	return out.Flush()
}

// savedServer is a virtual server as an option.
func (s Style) savedServer(vs VirtualServer) string {
	switch {
	case vs.Mark == 0:
		return savedProtocol(vs.Protocol) + " " + s.fullAddress(vs.Addr, vs.Protocol)
	case vs.Family == model.IPv6:
		return "-f " + strconv.Itoa(int(int32(vs.Mark))) + " -6" // as signed as in a listing
	}
	return "-f " + strconv.Itoa(int(int32(vs.Mark)))
}

func savedProtocol(p model.Protocol) string {
	switch p {
	case model.TCP:
		return "-t"
	case model.UDP:
		return "-u"
	case model.SCTP:
		return "--sctp-service"
	}
	return "--xxx-service"
}

// savedFlags is what stands behind the scheduler.
func savedFlags(e VirtualServerEntry) string {
	var s strings.Builder
	spec := e.Spec
	if spec.Flags&Persistent != 0 {
		fmt.Fprintf(&s, " -p %d", spec.Timeout)
		s.WriteString(maskText(" -M ", e.IPFamily(), spec.Netmask))
	}
	if spec.PEName != "" {
		s.WriteString(" --pe " + spec.PEName)
	}
	if spec.Flags&OnePacket != 0 {
		s.WriteString(" -o")
	}
	if spec.Flags&schedFlags != 0 {
		s.WriteString(" -b " + schedulerFlags(spec))
	}
	return s.String()
}

func savedMethod(f Forward) string {
	switch f {
	case Masquerade:
		return "-m"
	case ForwardTunnel:
		return "-i"
	}
	return "-g"
}

// savedTunnel is the options of a tunnel.
func savedTunnel(spec DestinationSpec) string {
	t := spec.Tunnel
	flags := [...]string{NoChecksum: " --tun-nocsum", Checksum: " --tun-csum", RemoteChecksum: " --tun-remcsum"}
	checked := ""
	if int(t.Flags) < len(flags) {
		checked = flags[t.Flags]
	}
	switch {
	case spec.Forward != ForwardTunnel || t.Type > GRE:
		return ""
	case t.Type == GUE:
		return " --tun-type gue --tun-port " + strconv.Itoa(int(t.Port)) + checked
	case t.Type == GRE:
		return " --tun-type gre" + checked
	}
	return " --tun-type ipip"
}

func savedThresholds(spec DestinationSpec) string {
	text := ""
	if spec.UpperThreshold != 0 {
		text += " -x " + strconv.FormatUint(uint64(spec.UpperThreshold), 10)
	}
	if spec.LowerThreshold != 0 {
		text += " -y " + strconv.FormatUint(uint64(spec.LowerThreshold), 10)
	}
	return text
}
