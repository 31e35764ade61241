package nflog

import (
	"sluice.dev/sluice/internal/nlbatch"
)

// What the external tests need of the inside.

// Over makes a Listener over a wire, and over one on which names are asked for.
func Over(sock, links nlbatch.Socket) *Listener {
	return &Listener{group: 100, sock: sock, names: names{conn: nlbatch.New(links, nlbatch.Options{}), known: map[uint32]known{}}}
}
