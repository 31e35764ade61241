package ipvsadm

import (
	"fmt"
	"io"
)

// versionLine is what ipvsadm 1.31 says of itself. It does not ask the kernel.
const versionLine = "ipvsadm v1.31 2019/12/24 (compiled with popt and IPVS v1.2.1)"

// writeVersion writes ipvsadm's version, because that is what scripts look at,
// and whose this one is.
func writeVersion(w io.Writer, version string) {
	fmt.Fprintf(w, "%s\nsluice %s, which reads the table as ipvsadm does\n", versionLine, version)
}

// writeUsage writes every option that ipvsadm has, in our words, and what of it
// is not done here.
func writeUsage(w io.Writer, program, version string) {
	fmt.Fprintf(w, "%s\n"+usageForms, versionLine, program)
	fmt.Fprint(w, usageOptions)
	fmt.Fprintf(w, "\nThis is sluice %s. What would change the table, but for -R, is read and refused;\n"+
		"sluice ipvs --help has examples, and the options that ipvsadm has not.\n", version)
}

const usageForms = `
Show the table:
  %[2]s -L [SERVICE] [columns]         virtual servers and their destinations
  %[2]s -L -c [columns]                connections
  %[2]s -L --timeout | --daemon        connection timeouts, sync daemons
Keep it, and put it back:
  %[2]s -S [-n] > FILE
  %[2]s -R < FILE

A SERVICE is -t ADDRESS[:PORT] (TCP), -u ADDRESS[:PORT] (UDP), --sctp-service ADDRESS[:PORT]
or -f MARK (firewall mark), with -6 for a mark of IPv6. IPv6 addresses stand in brackets.

`

const usageOptions = `Commands:
  -L, -l, --list               show what is there
  -S, --save                   write it as lines that -R reads
  -R, --restore                add what such lines say
  -h, --help                   show this
Commands that are refused here:
  -A, --add-service            -E, --edit-service           -D, --delete-service
  -a, --add-server             -e, --edit-server            -d, --delete-server
  -C, --clear                  -Z, --zero                   --set TCP TCPFIN UDP
  --start-daemon STATE         --stop-daemon STATE

Which service:
  -t, --tcp-service            -u, --udp-service            --sctp-service
  -f, --fwmark-service         -6, --ipv6

Columns of -L:
  -n, --numeric                numbers, not names, for addresses and ports
  -c, --connection             connections in the place of services
      --stats                  totals of connections, packets and bytes
      --rate                   the same for each second
      --exact                  such numbers in full, not as 12K
      --thresholds             at how many connections a destination takes no more, and takes some again
      --persistent-conn        how many clients are bound to a destination; with -c, what binds them
      --tun-info               the encapsulation to a destination
      --timeout                how long connections without traffic are kept
      --daemon                 the daemons that tell other directors of connections
      --nosort                 in the kernel's order
      --sort                   accepted; it is sorted anyway

What saved lines may say of a service:
  -s, --scheduler NAME         rr, wrr, lc, wlc (when nothing is said), lblc, lblcr, dh, sh, sed, nq, fo, ovf, mh
  -b, --sched-flags LIST       flags of the scheduler, with commas between them
  -p, --persistent [SECONDS]   a client stays with its destination
  -M, --netmask MASK           which clients count as one for that
      --pe NAME                the engine that tells clients apart: sip
  -o, --ops                    each packet of UDP is balanced by itself
and of a destination:
  -r, --real-server ADDRESS[:PORT]
  -m, --masquerading           its address is put in the place of the service's
  -g, --gatewaying             packets are routed to it as they are (when nothing is said)
  -i, --ipip                   packets are sent to it through a tunnel
      --tun-type TYPE          ipip (when nothing is said), gue or gre
      --tun-port PORT          of gue
      --tun-nocsum, --tun-csum, --tun-remcsum
                               checksums of the outer header: none, its own, remote
  -w, --weight NUMBER          its share; 0: nothing new
  -x, --u-threshold NUMBER     see --thresholds
  -y, --l-threshold NUMBER
and of a daemon, which nobody can start here:
  --syncid ID  --sync-maxlen BYTES  --mcast-interface NAME  --mcast-group ADDRESS  --mcast-port PORT  --mcast-ttl HOPS
`
