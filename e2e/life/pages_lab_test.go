//go:build lab

package life

import "testing"

func TestLifeOfAPacket(t *testing.T) { produce(t, enter(t), "life-of-a-packet.md", nil) }

func TestTroubleshooting(t *testing.T) { produce(t, enter(t), "troubleshooting.md", nil) }
