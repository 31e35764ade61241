package suite

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// Play makes a world with the program that SLUICE_BIN names, runs tests in it,
// takes it down, and returns the exit code. A world that was not made whole can
// be closed too. name is the package's, for errors; what says which world it is.
func Play[W io.Closer](name, what string, raise func(bin string) (W, error), tests func(W) int) int {
	begin := time.Now()
	bin := os.Getenv("SLUICE_BIN")
	if bin == "" {
		fmt.Fprintln(os.Stderr, name+": SLUICE_BIN does not say where sluice is; see `make e2e`")
		return 1
	}
	w, err := raise(bin)
	if err != nil {
		fmt.Fprintln(os.Stderr, name+":", errors.Join(err, w.Close()))
		return 1
	}
	fmt.Printf("%s, after %v\n", what, time.Since(begin).Round(time.Millisecond))
	code := tests(w)
	if err := w.Close(); err != nil {
		fmt.Fprintln(os.Stderr, name+":", err)
		return 1
	}
	return code
}
