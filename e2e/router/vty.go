package router

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// patience bounds one conversation with a daemon: a table of ten thousand
// routes in detail takes seconds.
const patience = 30 * time.Second

// vty has a daemon of FRR run commands, as vtysh does, and returns what it said
// to the last. A command ends with a zero byte; an answer with three, and then
// a byte that is zero again if the command was good.
func vty(socket string, commands ...string) (answer string, err error) {
	conn, err := open(socket)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	in := bufio.NewReader(conn)
	for _, c := range commands {
		if _, err := io.WriteString(conn, c+"\x00"); err != nil {
			return "", fmt.Errorf("router: %s: %w", c, err)
		}
		var good bool
		if answer, good, err = readVTY(in); err != nil {
			return "", fmt.Errorf("router: %s: %w", c, err)
		}
		if !good {
			return "", fmt.Errorf("router: FRR: %q: %s", c, strings.TrimSpace(answer))
		}
	}
	return answer, nil
}

func open(socket string) (net.Conn, error) {
	conn, err := net.DialTimeout("unix", socket, patience)
	if err != nil {
		return nil, fmt.Errorf("router: %w", err)
	}
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		conn.Close()
		return nil, fmt.Errorf("router: %w", err)
	}
	return conn, nil
}

func readVTY(in *bufio.Reader) (text string, good bool, err error) {
	end := []byte{0, 0, 0}
	var b bytes.Buffer
	for !bytes.HasSuffix(b.Bytes(), end) {
		chunk, err := in.ReadBytes(0)
		b.Write(chunk)
		if err != nil {
			return b.String(), false, err
		}
	}
	status, err := in.ReadByte()
	return strings.TrimSuffix(b.String(), string(end)), status == 0, err
}
