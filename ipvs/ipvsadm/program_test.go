package ipvsadm_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/ipvs"
	"sluice.dev/sluice/ipvs/ipvsadm"
	"sluice.dev/sluice/ipvs/ipvstest"
)

// machine is what a program runs on.
type machine struct {
	*ipvstest.Kernel
	daemons []ipvs.Daemon
	conns   io.Reader
	who     ipvsadm.Identities
	served  string
	absent  error // why there is no IPVS, or no agent
}

func newMachine() *machine {
	return &machine{Kernel: ipvstest.New(), conns: strings.NewReader(proc), who: ipvsadm.Identities{
		Services: map[string]string{"TCP 10.96.0.1:80": "shop/web:http"},
		Endpoints: map[string]ipvsadm.Pod{
			"10.88.0.1": {Pod: "shop/web-0", Node: "node1"}, "10.88.0.2:8080": {Pod: "shop/web-1", Node: "node2"}, "10.88.0.3": {Node: "node3"},
		},
	}}
}

func (m *machine) Daemons(context.Context) ([]ipvs.Daemon, error) { return m.daemons, nil }

const proc = `Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData
TCP 0A600001 D61A 0A600001 0050 0A580001 1F90 ESTABLISHED     899
TCP 0A600001 D61B 0A600001 0050 0A580002 1F90 TIME_WAIT        99
UDP 0A600001 D61C 0A60000A 0035 0A580003 0035 UDP             299
TCP [fd00:0010:0096:0000:0000:0000:0000:0010] D25C [fd00:0010:0096:0000:0000:0000:0000:0010] 0050 [fd00:000a:0000:0000:0000:0000:0000:0001] 1F90 ESTABLISHED     899
`

// dictionary knows a few names.
type dictionary struct{}

func (dictionary) Host(a netip.Addr) string { return map[string]string{"10.96.0.1": "web"}[a.String()] }

func (dictionary) Service(port uint16, _ model.Protocol) string {
	return map[uint16]string{80: "http"}[port]
}

func (dictionary) Port(name string, p model.Protocol) (uint16, bool) {
	return 80, name == "http" && p == model.TCP
}

func (dictionary) Address(host string) (netip.Addr, bool) {
	return netip.MustParseAddr("10.96.0.1"), host == "web"
}

// call is a program at the end of its work.
type call struct {
	out, err strings.Builder
	code     int
}

func (m *machine) program(c *call, stdin string) ipvsadm.Program {
	return ipvsadm.Program{
		Name: "ipvsadm", Version: "v1", Numeric: true, In: strings.NewReader(stdin), Out: &c.out, Err: &c.err,
		System: ipvsadm.System{
			Open:        func(context.Context) (ipvsadm.Kernel, error) { return m, m.absent },
			Connections: func() (io.ReadCloser, error) { return io.NopCloser(m.conns), nil },
			Names:       func(context.Context) (ipvsadm.Names, error) { return dictionary{}, nil },
			Ask: func(_ context.Context, at string) (ipvsadm.Identities, error) {
				if at == "nobody" {
					return ipvsadm.Identities{}, errors.New("no agent answers at nobody")
				}
				return m.who, nil
			},
			Served: func() string { return m.served },
		},
	}
}

func (m *machine) run(t *testing.T, stdin string, args ...string) *call {
	t.Helper()
	c := new(call)
	c.code = m.program(c, stdin).Run(t.Context(), args)
	return c
}

// made is the whole table as command lines.
func (m *machine) made(t *testing.T) string {
	t.Helper()
	return m.run(t, "", "-S", "-n", "--complete").out.String()
}

const web = `-A -t 10.96.0.1:80 -s rr -p 360 -b flag-2
-a -t 10.96.0.1:80 -r 10.88.0.1:8080 -m -w 1 -x 9 -y 5
-a -t 10.96.0.1:80 -r 10.88.0.2:8080 -m -w 2
-a -t 10.96.0.1:80 -r 10.88.0.3:80 -i -w 1 --tun-type gue --tun-port 6080 --tun-csum
-A -u 10.96.0.10:53 -s wlc -o
-A -f 79 -6 -s nq
`

func (m *machine) fill(t *testing.T) *machine {
	t.Helper()
	if c := m.run(t, web, "-R"); c.code != 0 || c.err.String() != "" {
		t.Fatal(c.code, c.err.String())
	}
	return m
}

func TestRestoreAndSave(t *testing.T) {
	m := newMachine().fill(t)
	if got := m.made(t); got != web {
		t.Errorf("got\n%s\nwant\n%s", got, web)
	}
	if got, want := m.run(t, "", "-S", "--resolve").out.String(), "-a -t web:http -r 10.88.0.1:8080 -m -w 1\n"; !strings.Contains(got, want) {
		t.Errorf("got\n%s\nwant in it %s", got, want)
	}
}

// What ipvsadm says of command lines: all of it was compared with ipvsadm in
// the lab (TestLabErrors), and here stand the rules.
func TestErrors(t *testing.T) {
	const try = "Try `ipvsadm -h' or 'ipvsadm --help' for more information.\n"
	for line, want := range map[string]struct {
		code int
		text string
	}{
		"-n -L":                                  {255, try}, // the command comes first
		"foo":                                    {255, try},
		"-q":                                     {255, try},
		"-L foo":                                 {2, "unexpected argument foo\n"},
		"foo -L":                                 {2, "unexpected argument foo\n"},
		"-L -- -n":                               {2, "unexpected argument -n\n"},
		"-Lq":                                    {255, "-Lq: unknown option\n"},
		"-L --lis":                               {255, "--lis: unknown option\n"}, // no abbreviations
		"-Ln=":                                   {255, "-Ln=: option does not take an argument\n"},
		"-L --numeric=3":                         {255, "--numeric=3: option does not take an argument\n"},
		"-L -t":                                  {255, "-t: missing argument\n"},
		"-L -A":                                  {2, "invalid option `-A'\n"},
		"-L -nn":                                 {2, "multiple 'numeric' options specified\n"},
		"-L -t x:80":                             {2, "illegal virtual server address[:port] specified\n"},
		"-L -t 10.96.0.9:80":                     {1, "No such service\n"},
		"-L -f 0":                                {2, "invalid fwmark value `0' specified\n"},
		"-L -6":                                  {2, "-6 used before -f\n\n"},
		"-L -s rr":                               {2, "Illegal 'scheduler' option with the 'list' command\n"},
		"-L -c --daemon":                         {2, "The option 'daemon' conflicts with the 'connection' option in the 'list' command\n"},
		"-L -c --stats":                          {2, "options conflicts in the list command\n"},
		"-S --thresholds":                        {2, "Illegal 'thresholds' option with the 'save' command\n"},
		"-R -n":                                  {2, "Illegal 'numeric' option with the 'restore' command\n"},
		"-L --source 10.0.0.0/8":                 {2, "The option 'source' needs the 'connection' option in the 'list' command\n"},
		"-L -c --source x":                       {2, "--source `x': use an address, a range or an address and port, such as 10.0.0.1, 10.0.0.0/8 or [fd00::1]:80\n"},
		"-L -c --limit -1":                       {2, "--limit `-1': use a number of connections; 0 is all\n"},
		"-L --watch=0":                           {2, "--watch `0': use seconds, at least 0.1\n"},
		"-L --watch --json":                      {2, "The option 'watch' conflicts with the 'json' option in the 'list' command\n"},
		"-L --resolve -n":                        {2, "The option 'resolve' conflicts with the 'numeric' option in the 'list' command\n"},
		"-L --agent x":                           {2, "The option 'agent' needs the 'names' option in the 'list' command\n"},
		"-L --names --agent nobody":              {1, "--names: no agent answers at nobody\n"},
		"-S --json":                              {2, "Illegal 'json' option with the 'save' command\n"},
		"-C":                                     {2, "--clear is refused: sluice reads the table here and does not change it. Services decide what is in it; see sluice ipvs --help\n"},
		"-A -t 10.96.0.1:80":                     {2, "--add-service is refused: sluice reads the table here and does not change it. Services decide what is in it; see sluice ipvs --help\n"},
		"--set 1 2 3":                            {2, "--set is refused: sluice reads the table here and does not change it. Services decide what is in it; see sluice ipvs --help\n"},
		"--start-daemon":                         {255, try}, // without its argument it is no command
		"-L -t 10.96.0.1:80 -u 10.96.0.1:80":     {2, "multiple 'service-address' options specified\n"},
		"-L --mcast-group fd00::1":               {2, "invalid IPv6 mcast-group `fd00::1'\n"},
		"-L -b nope":                             {2, "invalid scheduler flag `nope'\n"},
		"-L -b sh-port":                          {2, "incompatible scheduler flag `sh-port'\n"},
		"-L -w 2147483648":                       {2, "illegal weight specified\n"},
		"-L -p 2678401":                          {2, "invalid timeout value `2678401' specified\n"},
		"-L -t 10.96.0.1:80 -M":                  {255, "-M: missing argument\n"},
		"-L --tun-type nope":                     {2, "illegal tunnel type specified\n"},
		"-L -t [10.96.0.1]:80 -c":                {2, "The option 'service-address' conflicts with the 'connection' option in the 'list' command\n"},
		"-L --timeout --stats":                   {2, "options conflicts in the list command\n"},
		"-L --timeout --persistent-conn --exact": {2, "options conflicts in the list command\n"},
	} {
		m := newMachine().fill(t)
		c := m.run(t, "", strings.Fields(line)...)
		if c.code != want.code || c.err.String() != want.text || c.out.String() != "" {
			t.Errorf("%s: exit %d, %q, %q; want exit %d, %q", line, c.code, c.out.String(), c.err.String(), want.code, want.text)
		}
		if m.made(t) != web {
			t.Fatalf("%s: the table has changed", line)
		}
	}
}

// What ipvsadm says of lines to restore, one by one.
func TestRestoreErrors(t *testing.T) {
	for lines, want := range map[string]struct {
		code int
		text string
	}{
		"-A -t 10.96.0.1:80":                               {255, "Service already exists\n"},
		"-A -t 10.96.0.5:80 -s nope":                       {255, "Scheduler or persistence engine not found\n"},
		"-A -t 10.96.0.5:0":                                {2, "Zero port specified for non-persistent service\n"},
		"-A -t 10.96.0.5:80 -o":                            {2, "One-Packet Scheduling is only for UDP virtual services\n"},
		"-A -s rr":                                         {2, "You need to supply the 'service-address' option for the 'add-service' command\n"},
		"-a -t 10.96.0.1:80":                               {2, "You need to supply the 'real-server' option for the 'add-server' command\n"},
		"-a -t 10.96.0.9:80 -r 10.1.1.1":                   {255, "Service not defined\n"},
		"-a -t 10.96.0.1:80 -r 10.88.0.1:8080 -m":          {255, "Destination already exists\n"},
		"-a -t 10.96.0.1:80 -r [fd00::1]:80 -m":            {2, "Different address family is allowed only for tunneling servers\n"},
		"-a -t 10.96.0.1:80 -r 10.1.1.1 --tun-csum":        {2, "Tunnel options conflict with forward method\n"},
		"-a -t 10.96.0.1:80 -r 10.1.1.1 -i --tun-type gue": {2, "You need to supply the 'tun-port' option for the 'gue' tunnel type\n"},
		"-a -t 10.96.0.1:80 -r 10.1.1.1 -i --tun-port 5":   {2, "Illegal 'tun-port' option with the 'ipip' tunnel type\n"},
		"-a -t 10.96.0.1:80 -r 10.1.1.1 -x 5 -y 6":         {255, "Numerical result out of range\n"},
		"-C": {2, "--clear is refused: sluice reads the table here and does not change it. Services decide what is in it; see sluice ipvs --help\n"},
		"-R": {255, "Try `ipvsadm -h' or 'ipvsadm --help' for more information.\n"},
		"-A -t 10.96.0.1:80 -q\n-A -t 10.96.0.1:80": {255, "-q: unknown option\nService already exists\n"},
		"# comment": {255, "Try `ipvsadm -h' or 'ipvsadm --help' for more information.\n"},
		"-A -t 10.96.0.1:80\n-A -t 10.96.0.1:0\n-q":            {2, "Service already exists\nZero port specified for non-persistent service\n"},
		"-a -t 10.96.0.1:80 -r 10.1.1.1 -i --tun-type gre --x": {255, "--x: unknown option\n"},
	} {
		m := newMachine().fill(t)
		c := m.run(t, lines, "-R")
		if c.code != want.code || c.err.String() != want.text || c.out.String() != "" {
			t.Errorf("%s: exit %d, %q; want exit %d, %q", lines, c.code, c.err.String(), want.code, want.text)
		}
		if m.made(t) != web {
			t.Fatalf("%s: the table has changed", lines)
		}
	}
}

// The exit code is the last line's, and lines are as free as ipvsadm has them.
func TestRestoreLines(t *testing.T) {
	m := newMachine()
	const lines = "\n  ipvsadm -A -t 10.96.0.1:80 \r\n-A -t 10.96.0.1:80\n\t-a  -t web:http -r 10.88.0.1:8080 -m   "
	c := m.run(t, lines, "-R")
	if c.code != 0 || c.err.String() != "Service already exists\n" {
		t.Errorf("exit %d, %q", c.code, c.err.String())
	}
	if got, want := m.made(t), "-A -t 10.96.0.1:80 -s wlc\n-a -t 10.96.0.1:80 -r 10.88.0.1:8080 -m -w 1\n"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// The forms that an address may have.
func TestAddresses(t *testing.T) {
	for text, want := range map[string]string{
		"-t 10.96.0.1:443":       "-t 10.96.0.1:443",
		"-t10.96.0.1:443":        "-t 10.96.0.1:443",
		"-t=10.96.0.1:443":       "-t 10.96.0.1:443",
		"--tcp-service=web:http": "-t 10.96.0.1:80",
		"-t 10.96.0.1:http":      "-t 10.96.0.1:80",
		"-u 10.96.0.1:http":      "", // no port of that protocol
		"-t 10.96.0.1:+443":      "-t 10.96.0.1:443",
		"-t 10.24576.1:443":      "", // the third part of three holds 16 bits, the second 8
		"-t 10.96.1:443":         "-t 10.96.0.1:443",
		"-t 0x0a.0140.1:443":     "-t 10.96.0.1:443",
		"-t 174063617:443":       "-t 10.96.0.1:443",
		"-t 10.96.0.08:443":      "",
		"-t 10.96.0.0b1:443":     "",
		"-t 10.96.0.1.1:443":     "",
		"-t 10.96.0.256:443":     "",
		"-t 10.96.0.1:65536":     "",
		"-t 10.96.0.1:":          "",
		"-t 443":                 "", // a number is no host
		"-t nowhere:443":         "",
		"-t [fd00::1]:443":       "-t [fd00::1]:443",
		"-t [fd00::1]":           "",
		"-t [fd00::1]443":        "",
		"-t [fd00::1%lo]:443":    "",
		"-t [10.96.0.1]:443 -p":  "-t 10.96.0.1:0", // the port is not looked at
		"-t fd00::1 -p":          "-t [fd00::1]:0",
		"-f 78":                  "-f 78",
		"-f +78 -6":              "-f 78 -6",
		"-f 4294967296":          "",
	} {
		m := newMachine()
		c := m.run(t, "-A "+text+" -s rr", "-R")
		got, _, _ := strings.Cut(strings.TrimPrefix(m.made(t), "-A "), " -s")
		if got != want || (want == "") != (c.code == 2) {
			t.Errorf("%s: exit %d, %q, made %q; want %q", text, c.code, c.err.String(), got, want)
		}
	}
}

func TestRestoreWhereAnAgentServes(t *testing.T) {
	m := newMachine()
	m.served = "sluice0"
	if c := m.run(t, web, "-R"); c.code != 2 || !strings.HasPrefix(c.err.String(), "--restore is refused: an agent of sluice serves this node (its device sluice0 is here)") {
		t.Errorf("exit %d, %q", c.code, c.err.String())
	}
	if got := m.made(t); got != "" {
		t.Errorf("restored all the same:\n%s", got)
	}
	if c := m.run(t, web, "-R", "--force"); c.code != 0 || m.made(t) != web {
		t.Errorf("forced: exit %d, %q", c.code, c.err.String())
	}
}

func TestWithoutIPVS(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want string
	}{
		{fmt.Errorf("no such family: %w", syscall.ENOENT), "Protocol not available"}, {syscall.EPERM, "Permission denied (you must be root)"},
	} {
		m := newMachine()
		m.absent = tt.err
		for _, args := range [][]string{{}, {"-L"}, {"-L", "-c"}, {"-S"}, {"-R"}} {
			c := m.run(t, "", args...)
			want := "Can't initialize ipvs: " + tt.want + "\nAre you sure that IP Virtual Server is built in the kernel or as module?\n"
			if c.code != 2 || c.err.String() != want {
				t.Errorf("%v: exit %d, %q", args, c.code, c.err.String())
			}
		}
		if c := m.run(t, "", "-h"); c.code != 0 || !strings.HasPrefix(c.out.String(), "ipvsadm v1.31 ") || !strings.Contains(c.out.String(), "\n  ipvsadm -L [SERVICE] [columns] ") ||
			!strings.Contains(c.out.String(), "This is sluice v1") {
			t.Errorf("-h: exit %d, %s", c.code, c.out.String())
		}
		if c := m.run(t, "", "-v"); c.code != 0 || c.out.String() != "ipvsadm v1.31 2019/12/24 (compiled with popt and IPVS v1.2.1)\nsluice v1, which reads the table as ipvsadm does\n" {
			t.Errorf("-v: exit %d, %s", c.code, c.out.String())
		}
	}
}

func TestNamesOfEntries(t *testing.T) {
	m := newMachine().fill(t)
	const want = `Prot LocalAddress:Port Scheduler Flags                                 Service
  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn  Pod (Node)
TCP  10.96.0.1:80 rr (flag-2) persistent 360                           shop/web:http
  -> 10.88.0.1:8080               Masq    1      0          0          shop/web-0 (node1)
  -> 10.88.0.2:8080               Masq    2      0          0          shop/web-1 (node2)
  -> 10.88.0.3:80                 Tunnel  1      0          0          (node3)
`
	if c := m.run(t, "", "-L", "-t", "10.96.0.1:80", "--names"); c.code != 0 || c.out.String() != want {
		t.Errorf("exit %d\n%s\nwant\n%s", c.code, c.out.String(), want)
	}
	const conns = `IPVS connection entries
pro expire state       source             virtual            destination
TCP 14:59  ESTABLISHED 10.96.0.1:54810    10.96.0.1:80       10.88.0.1:8080      shop/web:http -> shop/web-0 (node1)
UDP 04:59  UDP         10.96.0.1:54812    10.96.0.10:53      10.88.0.3:53        -> (node3)
`
	if c := m.run(t, "", "-L", "-c", "--names", "--source", "10.96.0.1", "--state", "established,udp"); c.code != 0 || c.out.String() != conns {
		t.Errorf("exit %d\n%s\nwant\n%s", c.code, c.out.String(), conns)
	}
}

func TestFilters(t *testing.T) {
	for filters, want := range map[string]string{
		"":                                       "54810 54811 54812 53852",
		"--source 10.0.0.0/8":                    "54810 54811 54812",
		"--source 10.96.0.1:54811":               "54811",
		"--virtual 10.96.0.1":                    "54810 54811",
		"--virtual [fd00:10:96::10]:80":          "53852",
		"--destination fd00::/16":                "53852",
		"--destination 10.88.0.2/31":             "54811 54812",
		"--destination 10.88.0.2/31 --state udp": "54812",
		"--state ESTABLISHED,TIME_WAIT":          "54810 54811 53852",
		"--state NONE":                           "",
		"--limit 2":                              "54810 54811",
		"--limit 4":                              "54810 54811 54812 53852",
		"--limit 0":                              "54810 54811 54812 53852",
		"--limit 1 --virtual 10.96.0.10":         "54812",
	} {
		c := newMachine().run(t, "", append([]string{"-L", "-c", "-n"}, strings.Fields(filters)...)...)
		var ports []string
		for _, line := range strings.Split(strings.TrimSpace(c.out.String()), "\n")[2:] {
			source := strings.Fields(line)[3]
			ports = append(ports, source[strings.LastIndex(source, ":")+1:])
		}
		if got := strings.Join(ports, " "); got != want || c.code != 0 {
			t.Errorf("%s: exit %d, %s; want %s", filters, c.code, got, want)
		}
		note := ""
		if filters == "--limit 2" {
			note = "2 connections shown, as --limit says, and there are more\n"
		}
		if c.err.String() != note {
			t.Errorf("%s: %q", filters, c.err.String())
		}
	}
}

// endless is a connection table of so many lines, that tells how much memory
// is in use when it ends.
type endless struct {
	lines, read int
	heap        uint64
	part        string
}

func (e *endless) Read(b []byte) (int, error) {
	if e.part == "" {
		if e.read == e.lines {
			var m runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&m)
			e.heap = m.HeapAlloc
			return 0, io.EOF
		}
		e.read++
		e.part = fmt.Sprintf("TCP %08X D61A 0A600001 0050 0A580001 1F90 ESTABLISHED     899\n", e.read)
	}
	n := copy(b, e.part)
	e.part = e.part[n:]
	return n, nil
}

// counter counts what is written, and keeps none of it.
type counter struct{ n int }

func (c *counter) Write(b []byte) (int, error) {
	c.n += len(b)
	return len(b), nil
}

// A table of connections is never in memory, whatever is asked of it.
func TestConnectionsAreStreamed(t *testing.T) {
	var before runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for _, args := range [][]string{{"-L", "-c"}, {"-L", "-c", "--json"}, {"-L", "-c", "--resolve"}} {
		table, m, out := &endless{lines: 100_000}, newMachine(), new(counter)
		m.conns = table
		p := m.program(new(call), "")
		p.Out = out
		if code := p.Run(t.Context(), args); code != 0 || out.n < 5_000_000 {
			t.Errorf("%v: exit %d, %d bytes", args, code, out.n)
		}
		if grown := int64(table.heap) - int64(before.HeapAlloc); grown > 2<<20 {
			t.Errorf("%v: %d bytes in use after %d", args, grown, out.n)
		}
	}
	table, m := &endless{lines: 100_000}, newMachine()
	m.conns = table
	if c := m.run(t, "", "-L", "-c", "--limit", "10"); c.code != 0 || table.read > 200 {
		t.Errorf("exit %d: %d lines were read for 10", c.code, table.read)
	}
}

func TestDaemonsAndTimeouts(t *testing.T) {
	m := newMachine()
	m.daemons = []ipvs.Daemon{
		{State: ipvs.DaemonMaster, Interface: "v0", SyncID: 7},
		{State: ipvs.DaemonBackup, Interface: "v0", SyncID: 7, MaxLength: 1472, Group: netip.MustParseAddr("224.0.0.81"), Port: 8848, TTL: 1}, {},
	}
	const want = "master sync daemon (mcast=v0, syncid=7)\nbackup sync daemon (mcast=v0, syncid=7, maxlen=1472, group=224.0.0.81, port=8848, ttl=1)\n"
	if c := m.run(t, "", "-L", "--daemon"); c.code != 0 || c.out.String() != want {
		t.Errorf("exit %d\n%s", c.code, c.out.String())
	}
	if c := m.run(t, "", "-L", "--timeout"); c.code != 0 || c.out.String() != "Timeout (tcp tcpfin udp): 900 120 300\n" {
		t.Errorf("exit %d\n%s", c.code, c.out.String())
	}
}

func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		plain, screen := new(call), new(call)
		if code := m.program(plain, "").Run(ctx, []string{"-L", "--timeout", "--watch"}); code != 0 {
			t.Errorf("exit %d: %s", code, plain.err.String())
		}
		const line = "Timeout (tcp tcpfin udp): 900 120 300\n"
		if got := plain.out.String(); got != line+"\n"+line+"\n"+line { // at 0, 2 and 4 seconds
			t.Errorf("got %q", got)
		}
		p := m.program(screen, "")
		p.Terminal = true
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		p.Run(ctx, []string{"-L", "--timeout", "--watch=0.7"})
		if got, frame := screen.out.String(), "\x1b[H\x1b[2J"+line; got != frame+frame {
			t.Errorf("got %q", got)
		}
	})
}
