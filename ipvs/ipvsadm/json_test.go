package ipvsadm_test

import (
	"encoding/json"
	"net/netip"
	"os"
	"strings"
	"testing"

	"sluice.dev/sluice/ipvs"
)

// The field names are a promise: testdata/table.json changes only by what is
// added.
func TestTableAsJSON(t *testing.T) {
	want, err := os.ReadFile("testdata/table.json")
	if err != nil {
		t.Fatal(err)
	}
	m := newMachine()
	if c := m.run(t, strings.Replace(web, "-p 360", "-p 360 -M 255.255.255.0", 1)+"-A -t 10.96.0.2:80 -s mh -b mh-port,flag-3\n-A -u 10.96.0.11:5060 -s rr -p 60 -M 255.0.255.0 --pe sip\n", "-R"); c.code != 0 {
		t.Fatal(c.err.String())
	}
	c := m.run(t, "", "-L", "--json", "--names")
	if c.code != 0 || c.out.String() != string(want) {
		t.Errorf("exit %d, got\n%s", c.code, c.out.String())
	}
	if c := m.run(t, "", "-L", "--json", "-t", "10.96.0.1:80"); strings.Contains(c.out.String(), "version") || strings.Contains(c.out.String(), "shop") ||
		strings.Count(c.out.String(), `"scheduler"`) != 1 || !json.Valid([]byte(c.out.String())) {
		t.Errorf("one virtual server: %s", c.out.String())
	}
	if c := newMachine().run(t, "", "-L", "--json"); !strings.Contains(c.out.String(), `"virtualServers": []`) {
		t.Errorf("empty table: %s", c.out.String())
	}
}

func TestConnectionsAsJSON(t *testing.T) {
	const want = `{"connections": [
  {"protocol":"TCP","source":"10.96.0.1:54810","virtual":"10.96.0.1:80","destination":"10.88.0.1:8080","state":"ESTABLISHED","expires":899,"service":"shop/web:http","pod":"shop/web-0","node":"node1"},
  {"protocol":"TCP","source":"10.96.0.1:54811","virtual":"10.96.0.1:80","destination":"10.88.0.2:8080","state":"TIME_WAIT","expires":99,"service":"shop/web:http","pod":"shop/web-1","node":"node2"}
], "more": true}
`
	c := newMachine().run(t, "", "-L", "-c", "--json", "--names", "--limit", "2")
	if c.code != 0 || c.out.String() != want || !json.Valid([]byte(want)) {
		t.Errorf("exit %d\n%s", c.code, c.out.String())
	}
	c = newMachine().run(t, "", "-L", "-c", "--json", "--state", "NONE")
	if got := c.out.String(); got != "{\"connections\": [\n], \"more\": false}\n" || !json.Valid([]byte(got)) {
		t.Errorf("none: %s", got)
	}
}

func TestRestAsJSON(t *testing.T) {
	m := newMachine()
	m.daemons = []ipvs.Daemon{{State: ipvs.DaemonMaster, Interface: "v0", SyncID: 7, Group: netip.MustParseAddr("224.0.0.81"), Port: 8848, TTL: 1}}
	for what, want := range map[string]string{
		"--daemon":  `{"daemons":[{"state":"master","interface":"v0","syncID":7,"group":"224.0.0.81","port":8848,"ttl":1}]}`,
		"--timeout": `{"timeouts":{"tcp":900,"tcpFin":120,"udp":300}}`,
	} {
		c := m.run(t, "", "-L", "--json", what)
		if got := strings.Join(strings.Fields(c.out.String()), ""); c.code != 0 || got != want {
			t.Errorf("%s: exit %d, %s", what, c.code, got)
		}
	}
}
