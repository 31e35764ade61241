package test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/frontend/dockerfile/dockerfile2llb"
	"github.com/moby/buildkit/frontend/dockerui"
	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

const dockerfile = "../image/Dockerfile"

// platforms are those that images are built for.
func platforms() []ocispecs.Platform {
	return []ocispecs.Platform{{OS: "linux", Architecture: "amd64"}, {OS: "linux", Architecture: "arm64"}}
}

// registry is a registry that has every image that is named with its version, for
// every platform, and asks nobody.
type registry struct{}

func (registry) ResolveImageConfig(_ context.Context, ref string, opt sourceresolver.Opt) (string, digest.Digest, []byte, error) {
	if strings.HasSuffix(ref, ":latest") {
		return "", "", nil, errors.New(ref + " does not exist")
	}
	platform := platforms()[0]
	if opt.ImageOpt != nil && opt.ImageOpt.Platform != nil {
		platform = *opt.ImageOpt.Platform
	}
	config, err := json.Marshal(ocispecs.Image{Platform: platform})
	return ref, digest.FromBytes(config), config, err
}

// lint has BuildKit translate a Dockerfile for every platform, and returns what
// its linter and the translation say.
func lint(tb testing.TB, text string) (said []string) {
	tb.Helper()
	source := llb.NewSourceMap(nil, "Dockerfile", "Dockerfile", []byte(text))
	source.Definition = &llb.Definition{}
	for _, p := range platforms() {
		results, err := dockerfile2llb.DockerfileLint(tb.Context(), []byte(text), dockerfile2llb.ConvertOpt{
			Config:         dockerui.Config{BuildPlatforms: platforms()[:1]},
			SourceMap:      source,
			TargetPlatform: &p, MetaResolver: registry{},
		})
		if err != nil {
			tb.Fatal(err)
		}
		if results.Error != nil {
			said = append(said, results.Error.Message)
		}
		for _, w := range results.Warnings {
			said = append(said, w.RuleName+": "+w.Detail)
		}
	}
	return said
}

// TestDockerfile: BuildKit understands the Dockerfile, and its linter has nothing
// to say.
func TestDockerfile(t *testing.T) {
	good := file(t, dockerfile)
	if said := lint(t, good); len(said) > 0 {
		t.Errorf("%q", said)
	}
	for _, c := range []struct{ from, to, want string }{
		{"ENTRYPOINT [\"/usr/bin/sluice\"]", "ENTRYPOINT /usr/bin/sluice", "JSONArgsRecommended"},
		{"AS root", "as root", "FromAsCasing"},
		{"--from=root", "--from=rooot", "rooot"},
		{"WORKDIR /src", "WORKDIR src", "WorkdirRelativePath"},
		{"ENV PATH=/usr/sbin:/usr/bin", "ENV PATH=$WHERE", "UndefinedVar"},
		{"USER 65534:65534", "USERS 65534:65534", "unknown instruction"},
	} {
		bad := strings.Replace(good, c.from, c.to, 1)
		if said := lint(t, bad); bad == good || !strings.Contains(strings.Join(said, "\n"), c.want) {
			t.Errorf("%q: %q, want %s", c.to, said, c.want)
		}
	}
}

func file(tb testing.TB, path string) string {
	tb.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	return string(text)
}

// TestDockerfileRules: what no linter knows.
func TestDockerfileRules(t *testing.T) {
	text := file(t, dockerfile)
	for _, m := range regexp.MustCompile(`(?m)^FROM (?:--platform=\S+ )?(\S+)`).FindAllStringSubmatch(text, -1) {
		if _, tag, tagged := strings.Cut(m[1], ":"); m[1] != "scratch" && (!tagged || tag == "latest") {
			t.Errorf("%s has no version", m[1])
		}
	}
	_, last, _ := strings.Cut(text, "\nFROM scratch\n")
	if last == "" || strings.Contains(last, "\nFROM ") || !strings.Contains(last, "\nUSER 65534:65534\n") {
		t.Errorf("the image is not made of nothing, or is root's:\n%s", last)
	}
	modules := file(t, "../../go.mod")
	version := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(modules)[1]
	if !strings.Contains(text, "golang:"+version+"-") {
		t.Errorf("it is not built with Go %s, which go.mod asks for", version)
	}
}

// TestContext: .dockerignore leaves to the build what it copies, and all that the
// program is made of, and keeps back what is large.
func TestContext(t *testing.T) {
	patterns, err := ignorefile.ReadAll(strings.NewReader(file(t, "../../.dockerignore")))
	if err != nil {
		t.Fatal(err)
	}
	ignores, err := patternmatcher.New(patterns)
	if err != nil {
		t.Fatal(err)
	}
	ignored := func(path string) bool {
		is, err := ignores.MatchesOrParentMatches(path)
		if err != nil {
			t.Fatal(err)
		}
		return is
	}
	list := exec.Command("go", "list", "-deps", "-f", `{{if not .Standard}}{{$d := .Dir}}{{range .GoFiles}}{{$d}}/{{.}}{{"\n"}}{{end}}{{range .EmbedFiles}}{{$d}}/{{.}}{{"\n"}}{{end}}{{end}}`, "./cmd/sluice")
	list.Dir = "../.."
	list.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	out, err := list.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		t.Fatalf("go list: %v: %s", err, exit.Stderr)
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	needed := []string{"go.mod", "go.sum", "deploy/image/rootfs.sh"}
	for path := range strings.Lines(string(out)) {
		if rel, ours := strings.CutPrefix(strings.TrimSpace(path), root+"/"); ours {
			needed = append(needed, rel)
		}
	}
	if len(needed) < 50 {
		t.Errorf("only %d files are needed: %q", len(needed), needed)
	}
	if i := slices.IndexFunc(needed, ignored); i >= 0 {
		t.Errorf("%s is needed and ignored", needed[i])
	}
	for _, path := range []string{".git/HEAD", "bin/sluice", "e2e/go.sum", "internal/tools/go.sum", "cmd/sluice/config_test.go", "deploy/test/go.sum"} {
		if !ignored(path) {
			t.Errorf("%s is sent to the build for nothing", path)
		}
	}
}
