package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"sluice.dev/sluice/internal/api/proxyconfig"
)

// fileConfig says which files say what flags do not, and knows who has said what.
type fileConfig struct {
	paths []string
	print bool // print what is in force, and end

	said      map[string]said // by flag; what is not in it is the default
	notes     []proxyconfig.Note
	kubeProxy *proxyconfig.Place // of the KubeProxyConfiguration; nil: there is none
}

// said is who has set a flag.
type said struct {
	by layer
	at proxyconfig.Place
}

// layer is one of those that set flags. The higher goes before the lower.
type layer uint8

const (
	byNobody layer = iota
	byKubeProxy
	byAgent
	byCommand
)

func (c *fileConfig) flags(f *pflag.FlagSet) {
	f.StringSliceVar(&c.paths, "config", nil, "files with a KubeProxyConfiguration, an AgentConfiguration or both; flags go before the latter, and it goes before the former")
	f.BoolVar(&c.print, "print-config", false, "print what is in force, as an AgentConfiguration, and end")
}

// read takes in what files say, and settles who goes before whom.
func (c *config) read(f *pflag.FlagSet) error {
	if err := c.file.heard(f); err != nil {
		return err
	}
	docs, err := documents(c.file.paths, keys(f))
	if err != nil {
		return err
	}
	for i := range docs {
		by := byAgent
		if docs[i].Kind == proxyconfig.KubeProxyKind {
			by, c.file.kubeProxy = byKubeProxy, &docs[i].At
		}
		c.file.notes = append(c.file.notes, docs[i].Notes...)
		for _, s := range docs[i].Settings {
			if err := c.file.set(f, s, by); err != nil {
				return err
			}
		}
	}
	c.settle()
	return nil
}

// documents reads the files; of each kind one document is enough.
func documents(paths []string, keys proxyconfig.Keys) ([]proxyconfig.Document, error) {
	var all []proxyconfig.Document
	var errs []error
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			errs = append(errs, fmt.Errorf("--config: %w", err))
			continue
		}
		docs, err := proxyconfig.Read(path, data, keys)
		errs = append(errs, err)
		for _, d := range docs {
			if i := slices.IndexFunc(all, func(o proxyconfig.Document) bool { return o.Kind == d.Kind }); i >= 0 {
				errs = append(errs, fmt.Errorf("%s: a second %s; put it together with the one at %s", d.At, d.Kind, all[i].At))
			}
			all = append(all, d)
		}
	}
	return all, errors.Join(errs...)
}

// keys are what an AgentConfiguration may say: what this program does, and not
// what only names kube-proxy's ways or is for one run.
func keys(f *pflag.FlagSet) proxyconfig.Keys {
	out := proxyconfig.Keys{}
	f.VisitAll(func(flag *pflag.Flag) {
		if settable(flag) {
			out[proxyconfig.KeyOf(flag.Name)] = proxyconfig.Key{Flag: flag.Name, Type: flag.Value.Type()}
		}
	})
	return out
}

func settable(flag *pflag.Flag) bool {
	return !flag.Hidden && !slices.Contains([]string{"config", "print-config", "init-only", "help"}, flag.Name)
}

// heard notes what the command line has set, and what of it has no effect.
func (c *fileConfig) heard(f *pflag.FlagSet) (err error) {
	c.said = map[string]said{}
	f.Visit(func(flag *pflag.Flag) {
		name := flag.Name
		if same := sameAs(name); same != "" {
			if f.Changed(same) {
				err = wrong(name, "is another name of --%s: give one of them", same)
			}
			name = same
		}
		at := proxyconfig.Place{Field: "--" + flag.Name}
		c.said[name] = said{byCommand, at}
		if u, is := flag.Value.(*unused); is {
			c.notes = append(c.notes, proxyconfig.Note{At: at, Value: u.text, Why: u.why})
		}
	})
	return err
}

// set sets a flag, unless somebody has who goes before.
func (c *fileConfig) set(f *pflag.FlagSet, s proxyconfig.Setting, by layer) error {
	if c.said[s.Flag].by > by {
		return nil
	}
	c.said[s.Flag] = said{by, s.At}
	value := f.Lookup(s.Flag).Value
	text := strings.Join(s.Values, ",")
	var err error
	if list, is := value.(pflag.SliceValue); is {
		err = list.Replace(strings.FieldsFunc(text, func(r rune) bool { return r == ',' }))
	} else {
		err = value.Set(text)
	}
	if err != nil {
		return fmt.Errorf("%s: %q: %w", s.At, text, err)
	}
	return nil
}

// located says of a flag that cannot be used where it was set.
func (c *fileConfig) located(err error) error {
	bad, is := errors.AsType[badFlag](err)
	if s := c.said[bad.flag]; is && s.at.Field != "" && s.at.Field != "--"+bad.flag {
		return fmt.Errorf("%s: %s", s.at, bad.reason)
	}
	return err
}

// settle has what two flags say of one thing become one, and notes what of a
// KubeProxyConfiguration is not as in kube-proxy.
func (c *config) settle() {
	by := func(flag string) layer { return c.file.said[flag].by }
	note := func(flag, value, why string) {
		c.file.notes = append(c.file.notes, proxyconfig.Note{At: c.file.said[flag].at, Value: value, Why: why})
	}
	if by("v") > by("log-level") {
		c.logging.level = "info"
		if c.logging.verbosity >= debugFrom {
			c.logging.level = "debug"
		}
		c.file.said["log-level"] = c.file.said["v"]
	}
	if by("logging-format") > by("log-json") {
		c.logging.json = c.logging.format == "json"
		c.file.said["log-json"] = c.file.said["logging-format"]
	}
	if by("kubeconfig") == byKubeProxy && by("manifests") > byKubeProxy {
		note("kubeconfig", c.source.kubeconfig, "with --manifests no API server is asked")
		c.source.kubeconfig = ""
	}
	if m := c.service.mode; m == proxyconfig.ModeIPTables || m == proxyconfig.ModeNFTables {
		note("proxy-mode", m, whyOf("mode"))
	}
	c.settleAddresses(by, note)
	if c.file.kubeProxy != nil && by("nodeport-addresses") == byNobody && c.service.mode != proxyconfig.ModeNFTables {
		at := *c.file.kubeProxy
		at.Field = "nodePortAddresses"
		c.file.notes = append(c.file.notes, proxyconfig.Note{At: at, Value: "(not set)",
			Why: "kube-proxy would serve NodePorts at all addresses of this node, and Sluice does at the primary one of each family; " +
				"--nodeport-addresses=all serves them at all"})
	}
}

// debugFrom is the verbosity from which Kubernetes's programs tell what helps to
// find faults.
const debugFrom = 4

// settleAddresses completes where the agent serves, as kube-proxy does.
func (c *config) settleAddresses(by func(string) layer, note func(flag, value, why string)) {
	six := strings.Contains(c.serve.bind, ":")
	if six && by("metrics-bind-address") == byNobody {
		c.serve.metrics = "[::1]:" + metricsPort
	}
	if six && by("healthz-bind-address") == byNobody {
		c.serve.health = "[::]:" + healthPort
	}
	c.serve.metrics = withPort(c.serve.metrics, metricsPort)
	c.serve.health = withPort(c.serve.health, healthPort)
	if b := c.serve.bind; b != "" && b != "0.0.0.0" && b != "::" {
		note("bind-address", b, whyOf("bindAddress"))
	}
}

// whyOf is what the table of kube-proxy's fields says of one.
func whyOf(path string) string {
	all := proxyconfig.Fields()
	return all[slices.IndexFunc(all, func(f proxyconfig.Field) bool { return f.Path == path })].Why
}

// tell logs what has no effect, one line for each.
func (c *fileConfig) tell(log *slog.Logger) {
	for _, n := range c.notes {
		args := []any{"setting", n.At.Field, "value", n.Value, "why", n.Why}
		if where := n.At.Where(); where != "" {
			args = append(args, "at", where)
		}
		if n.Unknown {
			log.Warn("unknown field of "+proxyconfig.KubeProxyKind, args...)
			continue
		}
		log.Info("setting is ignored", args...)
	}
}

// printConfig prints what is in force, as a document that --config takes.
func (c *config) printConfig(w io.Writer, f *pflag.FlagSet) {
	fmt.Fprintf(w, "apiVersion: %s\nkind: %s\n", proxyconfig.AgentVersion, proxyconfig.AgentKind)
	f.VisitAll(func(flag *pflag.Flag) {
		if !settable(flag) {
			return
		}
		from := ""
		if s := c.file.said[flag.Name]; s.by != byNobody {
			from = " # " + s.at.String()
		}
		fmt.Fprintf(w, "%s: %s%s\n", proxyconfig.KeyOf(flag.Name), inYAML(flag.Value), from)
	})
	for _, n := range c.file.notes {
		fmt.Fprintf(w, "# ignored: %s = %s: %s\n", n.At, n.Value, n.Why)
	}
}

// inYAML is a flag's value as an AgentConfiguration has it.
func inYAML(v pflag.Value) string {
	if list, is := v.(pflag.SliceValue); is {
		var words []string
		for _, w := range list.GetSlice() {
			words = append(words, fmt.Sprintf("%q", w))
		}
		return "[" + strings.Join(words, ", ") + "]"
	}
	if v.Type() == "string" {
		return fmt.Sprintf("%q", v.String())
	}
	return v.String()
}
