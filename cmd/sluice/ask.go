package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"sigs.k8s.io/yaml"
)

const (
	// askTimeout is how long a running agent may take to answer.
	askTimeout = 10 * time.Second
	// defaultAgent is where the agent of this node answers.
	defaultAgent = "127.0.0.1:10249"
	// noSuchPage is what HTTP servers say of a page that they do not have, when
	// nobody has thought of it.
	noSuchPage = "404 page not found"
)

// agentFlag is how every command that asks a running agent is told where it is.
// --address is what some of them called it once.
func agentFlag(f *pflag.FlagSet, at *string) {
	f.StringVar(at, "agent", defaultAgent, "where the agent answers, as host:port or http://host:port: its --metrics-bind-address")
	f.StringVar(at, "address", defaultAgent, "the same as --agent")
	_ = f.MarkHidden("address") // it was defined in the line above
}

// The values of --output.
const (
	outputTable = ""
	outputWide  = "wide"
	outputJSON  = "json"
	outputYAML  = "yaml"
)

// runningAgent is an agent that is asked over HTTP.
type runningAgent struct{ url string }

// parseAgent reads --agent: "http://host:port", or host:port alone.
func parseAgent(text string) (runningAgent, error) {
	full := text
	if !strings.Contains(full, "://") {
		full = "http://" + full
	}
	u, err := url.Parse(full)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || strings.Trim(u.Path, "/") != "" {
		return runningAgent{}, fmt.Errorf("--agent %q: use host:port or http://host:port, such as %s", text, defaultAgent)
	}
	return runningAgent{url: u.Scheme + "://" + u.Host}, nil
}

// askAgent has the agent at a place answer with a list, or whatever JSON fills.
func askAgent(ctx context.Context, at, path string, answer any) error {
	a, err := parseAgent(at)
	if err != nil {
		return err
	}
	return a.get(ctx, path, answer)
}

// get asks for JSON.
func (a runningAgent) get(ctx context.Context, path string, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	response, err := a.do(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	defer response.Body.Close() //nolint:errcheck // it has been read
	if err := json.NewDecoder(response.Body).Decode(answer); err != nil {
		return fmt.Errorf("what %s answers is not what was asked for (%w); see that --agent is the agent's, and of this command's version", a.url, err)
	}
	return nil
}

// do sends a request, and returns the response if it is an answer.
func (a runningAgent) do(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, method, a.url+path, body)
	if err != nil {
		return nil, fmt.Errorf("--agent %q: use host:port or http://host:port, such as %s", a.url, defaultAgent)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // no proxy lies between
	response, err := client.Do(request)
	if err != nil {
		if cause, ok := errors.AsType[*url.Error](err); ok {
			err = cause.Err
		}
		return nil, fmt.Errorf("no agent answers at %s: %w; run this on a node where `sluice run` does, and name its --metrics-bind-address with --agent", a.url, err)
	}
	if response.StatusCode == http.StatusOK {
		return response, nil
	}
	defer response.Body.Close()                               //nolint:errcheck // it has been read
	text, _ := io.ReadAll(io.LimitReader(response.Body, 500)) // says more than no text does
	page, _, _ := strings.Cut(path, "?")
	return nil, refusal{agent: a.url, page: page, code: response.StatusCode, text: strings.TrimSpace(string(text))}
}

// refusal is an agent's answer that it has none.
type refusal struct {
	agent string
	page  string
	code  int
	text  string
}

func (r refusal) Error() string {
	if r.code == http.StatusNotFound {
		if r.text == noSuchPage {
			return fmt.Sprintf("the agent at %s has no %s: it is older than this command, or --agent names something else", r.agent, r.page)
		}
		return fmt.Sprintf("the agent at %s: %s", r.agent, r.text)
	}
	return fmt.Sprintf("the agent at %s answers %d %s: %s", r.agent, r.code, http.StatusText(r.code), r.text)
}

func writeJSON(out io.Writer, list any) error {
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	return e.Encode(list)
}

// writeYAML writes the same fields as writeJSON.
func writeYAML(out io.Writer, list any) error {
	text, err := yaml.Marshal(list)
	if err != nil {
		return err
	}
	_, err = out.Write(text)
	return err
}
