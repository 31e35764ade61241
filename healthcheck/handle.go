package healthcheck

import (
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync/atomic"
	"time"
)

// listen opens a TCP listener.
func listen(ctx context.Context, addr netip.AddrPort) (net.Listener, error) {
	var config net.ListenConfig
	return config.Listen(ctx, "tcp", addr.String())
}

// server answers one health check.
type server struct {
	http    *http.Server
	spec    atomic.Pointer[Spec]
	healthy func() bool
	done    chan struct{} // closed when nothing is accepted any more
}

// serve answers on a listener until close.
func serve(l net.Listener, spec Spec, opts Options) *server {
	s := &server{healthy: opts.Healthy, done: make(chan struct{})}
	s.spec.Store(&spec)
	s.http = &http.Server{
		Handler:           s,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      10 * time.Second,
		IdleTimeout:       2 * time.Minute, // load balancers ask every few seconds to a minute
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(opts.Log.Handler(), slog.LevelWarn),
	}
	go func() {
		defer close(s.done)
		_ = s.http.Serve(l) // closed, or broken: alive tells, and the next audit opens it anew
	}()
	return s
}

func (s *server) alive() bool {
	select {
	case <-s.done:
		return false
	default:
		return true
	}
}

// close closes the listener and every connection, and returns when the port is
// free.
func (s *server) close() {
	_ = s.http.Close() // the listener's, which is closed whatever it says
	<-s.done
}

// answer is the body of an answer, in kube-proxy's order.
type answer struct {
	Service        service `json:"service"`
	LocalEndpoints int     `json:"localEndpoints"`
	Healthy        bool    `json:"serviceProxyHealthy"`
}

type service struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
}

// ServeHTTP implements http.Handler.
func (s *server) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	spec, healthy := *s.spec.Load(), s.healthy()
	body, err := json.MarshalIndent(answer{
		Service:        service{Namespace: spec.Service.Namespace, Name: spec.Service.Name},
		LocalEndpoints: spec.Endpoints,
		Healthy:        healthy,
	}, "", "\t")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("X-Load-Balancing-Endpoint-Weight", strconv.Itoa(spec.Endpoints))
	if spec.Endpoints == 0 || !healthy {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_, _ = w.Write(body) // the client went away: nobody to tell
}
