package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"sluice.dev/sluice/internal/api/proxyconfig"
)

// configurationDoc has what is written by hand, and between marks what is made
// of the flags and of the table of kube-proxy's fields.
const configurationDoc = "../../docs/configuration.md"

// TestConfigurationReference: the tables of docs/configuration.md are those of
// the flags. SLUICE_WRITE=1 writes them, as `make generate` does.
func TestConfigurationReference(t *testing.T) {
	was, err := os.ReadFile(configurationDoc)
	if err != nil {
		t.Fatal(err)
	}
	is := string(was)
	for _, part := range []struct {
		name string
		text func(*strings.Builder)
	}{
		{"settings", settingsTable}, {"kube-proxy flags", kubeProxyTable}, {"KubeProxyConfiguration", fieldsTable}, {"controller", controllerTable},
	} {
		begin, end := "<!-- begin generated: "+part.name+" -->\n", "<!-- end generated: "+part.name+" -->"
		before, rest, has := strings.Cut(is, begin)
		_, after, ends := strings.Cut(rest, end)
		if !has || !ends {
			t.Fatalf("%s has no place for %q", configurationDoc, part.name)
		}
		var text strings.Builder
		part.text(&text)
		is = before + begin + "\n" + text.String() + "\n" + end + after
	}
	if is == string(was) {
		return
	}
	if os.Getenv("SLUICE_WRITE") == "" {
		t.Errorf("%s is not as the flags are; run make generate", configurationDoc)
		return
	}
	if err := os.WriteFile(configurationDoc, []byte(is), 0o644); err != nil {
		t.Error(err)
	}
}

func runFlags() *pflag.FlagSet {
	var c config
	f := pflag.NewFlagSet("run", pflag.ContinueOnError)
	c.flags(f)
	return f
}

// cell is a text as a table takes it.
func inCell(text string) string { return strings.ReplaceAll(text, "|", `\|`) }

// typeOf is a flag's type in the words of files.
func typeOf(flag *pflag.Flag) string {
	switch t := flag.Value.Type(); t {
	case "stringSlice", "strings":
		return "list"
	case "duration":
		return "time"
	case "int", "int32", "uint16", "Level":
		return "number"
	case "float32":
		return "number"
	case "string", "bool":
		return t
	default:
		return inCell(t)
	}
}

// defaultOf is what holds when nobody sets it.
func defaultOf(flag *pflag.Flag) string {
	switch flag.DefValue {
	case "", "[]":
		return ""
	}
	if flag.Value.Type() == "duration" {
		return "`" + strings.NewReplacer("h0m0s", "h", "m0s", "m").Replace(flag.DefValue) + "`"
	}
	return "`" + flag.DefValue + "`"
}

// fieldsOf are the fields of a KubeProxyConfiguration that a flag does.
func fieldsOf(flag string) string {
	var list []string
	for _, f := range proxyconfig.Fields() {
		if f.Flag == flag {
			list = append(list, "`"+f.Path+"`")
		}
	}
	return strings.Join(list, ", ")
}

func settingsTable(w *strings.Builder) {
	fmt.Fprintln(w, "| flag | key in AgentConfiguration | field of KubeProxyConfiguration | type | default | meaning |\n|---|---|---|---|---|---|")
	runFlags().VisitAll(func(flag *pflag.Flag) {
		if flag.Hidden {
			return
		}
		key := ""
		if settable(flag) {
			key = "`" + proxyconfig.KeyOf(flag.Name) + "`"
		}
		fmt.Fprintf(w, "| `--%s` | %s | %s | %s | %s | %s |\n", flag.Name, key, fieldsOf(flag.Name), typeOf(flag), defaultOf(flag), inCell(flag.Usage))
	})
}

// kubeProxyTable are the flags that help does not show.
func kubeProxyTable(w *strings.Builder) {
	fmt.Fprintln(w, "| flag | type | what becomes of it |\n|---|---|---|")
	runFlags().VisitAll(func(flag *pflag.Flag) {
		if !flag.Hidden {
			return
		}
		name, fate := "`--"+flag.Name+"`", flag.Usage
		if flag.Shorthand != "" && flag.Shorthand != flag.Name {
			name += ", `-" + flag.Shorthand + "`"
		}
		switch flag.Value.(type) {
		case *unused:
			fate = "ignored: " + fate
		case *otherCommand:
			fate = "refused: " + fate
		}
		fmt.Fprintf(w, "| %s | %s | %s |\n", name, typeOf(flag), inCell(fate))
	})
}

func fieldsTable(w *strings.Builder) {
	fmt.Fprintln(w, "| field | what becomes of it | difference, or reason |\n|---|---|---|")
	for _, f := range proxyconfig.Fields() {
		fate := "ignored"
		if f.Flag != "" {
			fate = "`--" + f.Flag + "`"
		}
		if f.Modes != nil {
			modes := slices.Clone(f.Modes)
			if modes[0] == proxyconfig.ModeIPTables {
				modes = append([]string{"not set"}, modes...)
			}
			fate += ", if the mode is " + strings.Join(modes, " or ")
		}
		fmt.Fprintf(w, "| `%s` | %s | %s |\n", f.Path, fate, inCell(f.Why))
	}
}

func controllerTable(w *strings.Builder) {
	var c controllerConfig
	f := pflag.NewFlagSet("controller", pflag.ContinueOnError)
	c.flags(f)
	fmt.Fprintln(w, "| flag | type | default | meaning |\n|---|---|---|---|")
	f.VisitAll(func(flag *pflag.Flag) {
		fmt.Fprintf(w, "| `--%s` | %s | %s | %s |\n", flag.Name, typeOf(flag), defaultOf(flag), inCell(flag.Usage))
	})
}
