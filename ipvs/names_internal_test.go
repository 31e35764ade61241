package ipvs

import (
	"testing"

	"sluice.dev/sluice/internal/model"
)

func TestServiceNames(t *testing.T) {
	ports := parseServices("# comment\n\nhttp\t\t80/tcp\t\twww # text\nwww2 80/tcp\nhttp 80/udp\nhttp\nbad x/tcp\nbig 70000/tcp\namqp 5672/sctp\n")
	n := &SystemNames{ports: ports}
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
}
