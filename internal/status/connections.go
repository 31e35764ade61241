package status

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"text/tabwriter"

	"sluice.dev/sluice/internal/model"
)

// Connections are the connections that a frontend has at one moment.
type Connections struct {
	Service  model.Name
	Frontend model.FrontendKey
	Active   uint64 // established; UDP has none
	Inactive uint64 // all others: opening, closing, and all of UDP
}

// WriteConnections writes connections as a table, ordered by Service and
// frontend.
func WriteConnections(w io.Writer, list []Connections) {
	list = slices.SortedFunc(slices.Values(list), func(a, b Connections) int {
		return cmp.Or(a.Service.Compare(b.Service), a.Frontend.Compare(b.Frontend))
	})
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "SERVICE\tFRONTEND\tACTIVE\tINACTIVE")
	for _, c := range list {
		fmt.Fprintf(t, "%s\t%s/%s\t%d\t%d\n", c.Service, c.Frontend.Addr, c.Frontend.Protocol, c.Active, c.Inactive)
	}
	_ = t.Flush() // as good as the writer, whose errors are its owner's
}

func serveConnections(list func(context.Context) ([]Connections, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		connections, err := list(r.Context())
		if err != nil {
			http.Error(w, fmt.Sprintf("cannot count connections: %v", err), http.StatusInternalServerError)
			return
		}
		WriteConnections(w, connections)
	}
}
