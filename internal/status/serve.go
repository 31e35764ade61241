package status

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// bindRetry is how long to wait before an address that could not be bound is
// tried again, as kube-proxy does.
const bindRetry = 5 * time.Second

// Serve serves HTTP on an address until ctx ends. An address that cannot be
// bound is said once and tried again: the data path does not depend on it.
func Serve(ctx context.Context, addr string, h http.Handler, log *slog.Logger) error {
	listener, err := listen(ctx, addr, log)
	if err != nil {
		return nil //nolint:nilerr // ctx ended before the address could be bound
	}
	server := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       time.Minute,
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", addr, err)
	}
	return nil
}

func listen(ctx context.Context, addr string, log *slog.Logger) (net.Listener, error) {
	var config net.ListenConfig
	for said := false; ; said = true {
		l, err := config.Listen(ctx, "tcp", addr)
		if err == nil {
			return l, nil
		}
		if !said {
			log.Error("cannot listen; trying again every 5 s", "addr", addr, "err", err)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(bindRetry):
		}
	}
}
