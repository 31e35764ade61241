package agent

import "testing"

func TestSum(t *testing.T) {
	const text = `# HELP sluice_table_writes_total Keys.
sluice_table_writes_total{op="put",table="ipvs"} 3
sluice_table_writes_total{op="delete",table="ipvs"} 2
sluice_table_writes_total{op="put",table="vip"} 40
sluice_up 1
`
	for _, c := range []struct {
		name   string
		labels map[string]string
		want   float64
		fails  bool
	}{
		{name: "sluice_table_writes_total", labels: map[string]string{"table": "ipvs"}, want: 5},
		{name: "sluice_table_writes_total", labels: map[string]string{"table": "ipvs", "op": "put"}, want: 3},
		{name: "sluice_table_writes_total", want: 45},
		{name: "sluice_up", want: 1},
		{name: "sluice_table_writes_total", labels: map[string]string{"table": "ip"}, fails: true},
		{name: "sluice_table", fails: true},
	} {
		if got, err := sum(text, c.name, c.labels); got != c.want || (err != nil) != c.fails {
			t.Errorf("%s%v: %v, %v, want %v", c.name, c.labels, got, err, c.want)
		}
	}
}
