//go:build lab

package life

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/net/dns/dnsmessage"

	"sluice.dev/sluice/e2e/topo"
)

// serveDNS has a host answer for the cluster's names, over UDP and IPv4.
func (w *world) serveDNS(h *topo.Host, port uint16) error {
	var conn *net.UDPConn
	err := h.Do(func() (err error) {
		conn, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(h.V4, port)))
		return err
	})
	if err != nil {
		return fmt.Errorf("DNS on %s: %w", h.Name, err)
	}
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				continue // an ICMP error for an earlier answer
			}
			if answer, err := w.answer(buf[:n]); err == nil {
				_, _ = conn.WriteToUDPAddrPort(answer, from)
			}
		}
	}()
	w.closers = append(w.closers, conn.Close)
	return nil
}

// answer answers a question for one name.
func (w *world) answer(query []byte) ([]byte, error) {
	var p dnsmessage.Parser
	head, err := p.Start(query)
	if err != nil {
		return nil, err
	}
	question, err := p.Question()
	if err != nil {
		return nil, err
	}
	addrs, known := (*w.zone.Load())[question.Name.String()]
	head.Response, head.Authoritative, head.RecursionAvailable = true, true, true
	if !known {
		head.RCode = dnsmessage.RCodeNameError
	}
	b := dnsmessage.NewBuilder(nil, head)
	if err := errors.Join(b.StartQuestions(), b.Question(question), b.StartAnswers()); err != nil {
		return nil, err
	}
	for _, a := range addrs {
		if question.Type != dnsmessage.TypeA {
			break
		}
		header := dnsmessage.ResourceHeader{Name: question.Name, Class: dnsmessage.ClassINET, TTL: 5}
		if err := b.AResource(header, dnsmessage.AResource{A: a.As4()}); err != nil {
			return nil, err
		}
	}
	return b.Finish()
}
