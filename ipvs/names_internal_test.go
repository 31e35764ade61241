package ipvs

import (
	"testing"

	"sluice.dev/sluice/internal/model"
)

func TestServiceNames(t *testing.T) {
	ports, named := parseServices("# comment\n\nhttp\t\t80/tcp\t\twww # text\nwww2 80/tcp\nhttp 80/udp\nhttp\nbad x/tcp\nbig 70000/tcp\namqp 5672/sctp\n")
	n := &SystemNames{ports: ports, named: named}
	for _, tt := range []struct {
		port     uint16
		protocol model.Protocol
		want     string
	}{
		{80, model.TCP, "http"}, {80, model.UDP, "http"}, {80, model.SCTP, ""}, {5672, model.SCTP, "amqp"}, {5672, model.TCP, ""}, {80, 0, ""},
	} {
		if got := n.Service(tt.port, tt.protocol); got != tt.want {
			t.Errorf("%d/%s: got %q, want %q", tt.port, tt.protocol, got, tt.want)
		}
	}
	for _, tt := range []struct {
		name     string
		protocol model.Protocol
		want     uint16
	}{
		{"http", model.TCP, 80}, {"www", model.TCP, 80}, {"www2", model.TCP, 80}, {"www", model.UDP, 0}, {"amqp", model.SCTP, 5672}, {"80", model.TCP, 0},
	} {
		if got, known := n.Port(tt.name, tt.protocol); got != tt.want || known != (got != 0) {
			t.Errorf("%s/%s: got %d, %v, want %d", tt.name, tt.protocol, got, known, tt.want)
		}
	}
}
