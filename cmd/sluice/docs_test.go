package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"sluice.dev/sluice/ipvs"
	"sluice.dev/sluice/ipvs/ipvsadm"
	"sluice.dev/sluice/ipvs/ipvstest"
)

// pages are the documents that name commands.
func pages(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, pattern := range []string{"README.md", "docs/*.md", "docs/decisions/*.md", "e2e/README.md", "deploy/*/*.md", "deploy/examples/*.yaml", "deploy/examples/life/*.yaml"} {
		paths, err := filepath.Glob(filepath.Join("..", "..", filepath.FromSlash(pattern)))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			all[strings.TrimPrefix(filepath.ToSlash(path), "../../")] = string(text)
		}
	}
	return all
}

// Commands stand at the beginning of a line, behind a prompt or `kubectl exec`
// perhaps, or between backticks. What is no command and begins so is the first line of `sluice status`,
// a line of the demo's, and drawings.
var (
	commandLine   = regexp.MustCompile("(?m)^[\\s#>|]*(?:[a-z0-9-]*[$#] )?(?:sudo )?(?:timeout [0-9]+ )?(?:kubectl [^\n]* -- )?(sluice [^\n]*)")
	commandInline = regexp.MustCompile("`(?:sudo )?(sluice [^`\n]*)`")
	noCommand     = regexp.MustCompile(`^sluice \S+ on \S+, serving |: identical on |─`)
)

// commands are those that a page names.
func commands(text string) (list []string) {
	// In a block, or in a comment of an example; prose may begin a line so.
	block := false
	for line := range strings.Lines(text) {
		if strings.HasPrefix(strings.TrimSpace(line), "```") {
			block = !block
		}
		if m := commandLine.FindStringSubmatch(line); m != nil && !noCommand.MatchString(m[1]) && (block || strings.HasPrefix(line, "    ") || strings.HasPrefix(line, "#   ")) {
			list = append(list, m[1])
		}
		for _, m := range commandInline.FindAllStringSubmatch(line, -1) {
			list = append(list, m[1])
		}
	}
	return list
}

// words are a command line's, up to what a shell takes for the next command, a
// redirection or a comment.
func words(line string) []string {
	var list []string
	for _, w := range regexp.MustCompile(`'[^']*'|"[^"]*"|[^\s]+`).FindAllString(line, -1) {
		if strings.ContainsAny(w[:1], "|>&;#(") {
			break
		}
		end := strings.HasSuffix(w, ";")
		list = append(list, strings.Trim(strings.TrimRight(w, ";"), `'"`))
		if end {
			break
		}
	}
	return list
}

// parses says what is wrong with a command line, without carrying it out.
func parses(line string) error {
	args := words(line)[1:]
	cmd, rest, err := root().Find(args)
	if err != nil {
		return err
	}
	if cmd.Name() == "ipvs" {
		return parsesAsIPVSADM(rest)
	}
	if len(rest) > 0 && !cmd.Runnable() {
		return fmt.Errorf("%s has no command %q", cmd.CommandPath(), rest[0])
	}
	if err := cmd.ParseFlags(rest); errors.Is(err, pflag.ErrHelp) || isWithoutArgument(err) {
		return nil // prose names a flag alone
	} else if err != nil {
		return err
	}
	return cmd.ValidateArgs(cmd.Flags().Args())
}

func isWithoutArgument(err error) bool {
	_, is := errors.AsType[*pflag.ValueRequiredError](err)
	return is
}

// noTable is a kernel without virtual servers and daemons.
type noTable struct{ ipvs.Handle }

func (noTable) Daemons(context.Context) ([]ipvs.Daemon, error) { return nil, nil }

// parsesAsIPVSADM has ipvsadm's command line carried out where there is nothing:
// what is not there is its code 1, what it does not understand 2 or 255.
func parsesAsIPVSADM(args []string) error {
	if len(args) > 0 && args[0] == "--help" || len(args) == 0 {
		return nil
	}
	// A watch goes on until it is told to stop.
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	var out bytes.Buffer
	p := ipvsadm.Program{
		Name: "ipvsadm", Numeric: true, In: strings.NewReader(""), Out: &out, Err: &out,
		System: ipvsadm.System{
			Open:        func(context.Context) (ipvsadm.Kernel, error) { return noTable{ipvstest.New()}, nil },
			Connections: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("")), nil },
			Names:       func(ctx context.Context) (ipvsadm.Names, error) { return ipvs.NewSystemNames(ctx) },
			Ask:         func(context.Context, string) (ipvsadm.Identities, error) { return ipvsadm.Identities{}, nil },
			Served:      func() string { return "" },
		},
	}
	if code := p.Run(ctx, args); code != 0 && code != 1 {
		return fmt.Errorf("exit %d: %s", code, out.String())
	}
	return nil
}

// TestCommandsInDocs: every command of sluice's that a document names is one.
func TestCommandsInDocs(t *testing.T) {
	total := 0
	for page, text := range pages(t) {
		for _, line := range commands(text) {
			total++
			if err := parses(line); err != nil {
				t.Errorf("%s: %s: %v", page, line, err)
			}
		}
	}
	if total < 60 {
		t.Errorf("the documents name %d commands only", total)
	}
}

// TestFlagsInDocs: every flag that a document names between backticks is one of
// some command's.
func TestFlagsInDocs(t *testing.T) {
	known := map[string]bool{}
	var learn func(cmd *cobra.Command)
	learn = func(cmd *cobra.Command) {
		cmd.InitDefaultHelpFlag()
		cmd.Flags().VisitAll(func(f *pflag.Flag) { known[f.Name] = true })
		for _, sub := range cmd.Commands() {
			learn(sub)
		}
	}
	learn(root())
	// Of other programs, and of ipvsadm's command line.
	for _, name := range []string{"random-fully", "names", "json", "watch", "resolve", "source", "virtual", "destination", "state", "limit", "force", "complete", "noflush"} {
		known[name] = true
	}
	for page, text := range pages(t) {
		for _, m := range regexp.MustCompile("`--([a-z0-9-]+)[^`]*`").FindAllStringSubmatch(text, -1) {
			if !known[m[1]] {
				t.Errorf("%s: no command has the flag --%s", page, m[1])
			}
		}
	}
}

func TestParses(t *testing.T) {
	for line, good := range map[string]bool{
		"sluice services shop/web":                 true,
		"sluice services shop/web -o wide | less":  true,
		"sluice bgp routes    # who is told":       true,
		"sluice policy explain --from a --to b:80": true,
		"sluice ipvs -Ln -t 10.96.0.80:80":         true,
		"sluice ipvs -L -n -c --source 10.0.0.1":   true,
		"sluice ipvs -S > saved":                   true,
		"sluice services a b":                      false,
		"sluice bgp rotes":                         false,
		"sluice run --no-such-flag":                false,
		"sluice ipvs -Ln --bogus":                  false,
		"sluice ipvs -t":                           false,
		"sluice nonsense":                          false,
	} {
		if err := parses(line); (err == nil) != good {
			t.Errorf("%s: %v", line, err)
		}
	}
}
