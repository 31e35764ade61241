//go:build lab

package cluster

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// The users that sluice is.
const (
	agentUser      = "system:serviceaccount:kube-system:sluice-agent"
	controllerUser = "system:serviceaccount:kube-system:sluice-controller"
)

// tester is the HTTP user agent of who asks in their name to be refused.
const tester = "sluice-tester"

// request is what a ServiceAccount asked of the API server.
type request struct {
	user      string
	verb      string
	group     string
	resource  string // with its subresource; "": no resource but a path
	namespace string
	name      string
}

func (r request) String() string {
	what := r.resource
	if r.group != "" {
		what += "." + r.group
	}
	if r.namespace != "" {
		what += " in " + r.namespace
	}
	if r.name != "" {
		what += " " + r.name
	}
	return r.verb + " " + what
}

// audit is what the API server has written down of ServiceAccounts' requests.
type audit struct{ path string }

// event is a line of it.
type event struct {
	Stage string `json:"stage"`
	Verb  string `json:"verb"`
	URI   string `json:"requestURI"`
	Agent string `json:"userAgent"`
	User  struct {
		Username string `json:"username"`
	} `json:"user"`
	Object *struct {
		Resource, Subresource, Namespace, Name string
		APIGroup                               string `json:"apiGroup"`
	} `json:"objectRef"`
	Response struct {
		Code int `json:"code"`
	} `json:"responseStatus"`
}

// end is where the log ends now.
func (a *audit) end() (int64, error) {
	is, err := os.Stat(a.path)
	if err != nil {
		return 0, err
	}
	return is.Size(), nil
}

// since are the requests of sluice's users after some place in the log: how often
// each was made, and which were refused.
func (a *audit) since(offset int64) (made map[request]int, refused []string, err error) {
	file, err := os.Open(a.path)
	if err != nil {
		return nil, nil, err
	}
	defer file.Close()
	// Of what the host writes a guest would see what it has seen before.
	if err := unix.Fadvise(int(file.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", a.path, err)
	}
	if _, err := file.Seek(offset, io.SeekStart); err != nil {
		return nil, nil, err
	}
	made = map[request]int{}
	for lines := bufio.NewReader(file); ; {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF {
			return made, refused, nil
		}
		if err != nil {
			return nil, nil, err
		}
		var e event
		if err := json.Unmarshal(line, &e); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", a.path, err)
		}
		if e.Agent == tester || e.User.Username != agentUser && e.User.Username != controllerUser {
			continue
		}
		r := e.request()
		switch e.Response.Code {
		case 401, 403:
			refused = append(refused, fmt.Sprintf("%d: %s by %s", e.Response.Code, r, r.user))
		default:
			if e.Stage != "ResponseComplete" || r.verb != "watch" { // of a watch its beginning counts
				made[r]++
			}
		}
	}
}

func (e event) request() request {
	r := request{user: e.User.Username, verb: e.Verb}
	if o := e.Object; o != nil && o.Resource != "" {
		r.group, r.resource, r.namespace, r.name = o.APIGroup, o.Resource, o.Namespace, o.Name
		if o.Subresource != "" {
			r.resource += "/" + o.Subresource
		}
		return r
	}
	path, _, _ := strings.Cut(e.URI, "?")
	r.name = path
	return r
}
