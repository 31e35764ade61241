//go:build lab

package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"sluice.dev/sluice/e2e/topo"
)

// The images. Web and shell are no programs, but hosts of the topology.
const (
	webImage   = "web"   // answers over HTTP on its container's port, and ends politely
	shellImage = "shell" // only asks

	sluiceImage = "sluice" // as its Dockerfile has it
)

// pod is a Pod on a node.
type pod struct {
	k       *kubelet
	spec    *corev1.Pod
	node    *topo.Host
	started bool          // guarded by the kubelet's mu
	once    sync.Once     // closes leave
	leave   chan struct{} // closed when it is to end

	// What begin makes, for who looks when the Pod is ready.
	dir     string
	network *topo.Host // its own, or the node's
	log     *os.File   // of a process
	end     func(context.Context) error

	mu      sync.Mutex
	process *topo.Process // guarded by mu; nil: a host of the topology
	state   state         // run's
}

// state is how a Pod's container is.
type state struct {
	ready     bool
	succeeded bool // it has ended, and nothing is to be done any more
	starts    int
	probed    time.Time // whether it lives
	failures  int       // of such probes in a row
}

func newPod(k *kubelet, o *corev1.Pod, node *topo.Host) *pod {
	return &pod{k: k, spec: o, node: node, leave: make(chan struct{})}
}

func (p *pod) leaving() bool {
	select {
	case <-p.leave:
		return true
	default:
		return false
	}
}

// run is the Pod's life on its node.
func (p *pod) run(ctx context.Context) {
	err := p.begin(ctx)
	if err != nil && ctx.Err() == nil {
		p.k.trouble("%s on %s cannot start: %v", p.spec.Name, p.node.Name, err)
	}
	if err == nil {
		p.watch(ctx)
	}
	select {
	case <-ctx.Done():
		return
	case <-p.leave:
	}
	if err := p.finish(ctx); err != nil && ctx.Err() == nil {
		p.k.trouble("%s on %s does not end well: %v", p.spec.Name, p.node.Name, err)
	}
	p.k.gone(p)
	now := int64(0)
	err = p.k.w.api.CoreV1().Pods(p.spec.Namespace).Delete(ctx, p.spec.Name, metav1.DeleteOptions{
		GracePeriodSeconds: &now, Preconditions: metav1.NewUIDPreconditions(string(p.spec.UID)),
	})
	if err != nil && !apierrors.IsNotFound(err) && ctx.Err() == nil { // somebody may have been sooner
		p.k.trouble("%s is not gone: %v", p.spec.Name, err)
	}
}

// begin gives the Pod its network and volumes and starts what is in it.
func (p *pod) begin(ctx context.Context) (err error) {
	p.dir = filepath.Join(p.k.w.dir, "pods", string(p.spec.UID))
	if err := os.MkdirAll(p.dir, 0o755); err != nil {
		return err
	}
	if p.network, err = p.join(); err != nil {
		return err
	}
	if image(p.main()) == sluiceImage {
		if p.log, err = os.Create(filepath.Join(p.k.w.logDir(), p.spec.Name+".log")); err != nil {
			return err
		}
	}
	for _, c := range p.spec.Spec.InitContainers {
		process, err := p.start(ctx, c)
		if err != nil {
			return err
		}
		<-process.Done()
		if err := process.Err(); err != nil {
			return fmt.Errorf("init container %s: %w", c.Name, err)
		}
	}
	if err := p.startMain(ctx); err != nil {
		return err
	}
	return p.report(ctx)
}

// join is the Pod's network: the node's, or one of its own, named so that
// answers tell of which kind and which one it is.
func (p *pod) join() (*topo.Host, error) {
	if p.spec.Spec.HostNetwork {
		return p.node, nil
	}
	p.k.mu.Lock()
	defer p.k.mu.Unlock()
	return p.k.w.AddPod(p.node, hostName(p.spec))
}

// hostName is at most 15 bytes: the label version or app, and the end of the
// Pod's name.
func hostName(o *corev1.Pod) string {
	const most = 9
	kind := o.Name
	for _, label := range []string{"app.kubernetes.io/component", "app", "version"} {
		if v, is := o.Labels[label]; is {
			kind = v
		}
	}
	if kind == o.Name {
		return kind
	}
	return kind[:min(len(kind), most)] + "-" + o.Name[max(0, len(o.Name)-5):]
}

// startMain starts the Pod's one container.
func (p *pod) startMain(ctx context.Context) (err error) {
	p.state = state{starts: p.state.starts + 1, probed: time.Now()}
	switch c := p.main(); image(c) {
	case webImage:
		p.end, err = p.network.ServePolitely(uint16(c.Ports[0].ContainerPort))
	case shellImage:
	default:
		var process *topo.Process
		process, err = p.start(ctx, c)
		p.mu.Lock()
		p.process = process
		p.mu.Unlock()
	}
	return err
}

func (p *pod) main() corev1.Container { return p.spec.Spec.Containers[0] }

// kill ends the Pod's process without warning.
func (p *pod) kill() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.process.Kill()
}

// watch probes the container, and starts it anew when it has ended or does not
// live, until the Pod is to end or has done its work.
func (p *pod) watch(ctx context.Context) {
	for !p.state.succeeded {
		if is := p.probe(p.main().ReadinessProbe) == nil; is != p.state.ready {
			p.state.ready = is
			if err := p.report(ctx); err != nil {
				p.k.log.say("%s: %v", p.spec.Name, err)
				p.state.ready = !is
			}
		}
		p.live()
		var done <-chan struct{}
		if p.process != nil {
			done = p.process.Done()
		}
		select {
		case <-ctx.Done():
			return
		case <-p.leave:
			return
		case <-done:
			if err := p.again(ctx); err != nil {
				p.k.log.say("%s: %v", p.spec.Name, err)
				return
			}
		case <-time.After(p.pause()):
		}
	}
}

// pause is the time between two probes: a second, until the container is ready.
func (p *pod) pause() time.Duration {
	if r := p.main().ReadinessProbe; r != nil && p.state.ready {
		return time.Duration(r.PeriodSeconds) * time.Second
	}
	return time.Second
}

// live ends a container that does not live any more.
func (p *pod) live() {
	l := p.main().LivenessProbe
	if l == nil || time.Since(p.state.probed) < time.Duration(l.PeriodSeconds)*time.Second {
		return
	}
	p.state.probed = time.Now()
	if p.state.failures++; p.probe(l) == nil {
		p.state.failures = 0
	}
	if p.state.failures >= int(l.FailureThreshold) {
		p.k.log.say("%s does not live", p.spec.Name)
		_ = p.process.Stop()
	}
}

// again starts a container anew that has ended, unless it has done its work.
func (p *pod) again(ctx context.Context) error {
	err := p.process.Err()
	p.k.log.say("%s on %s has ended: %v", p.spec.Name, p.node.Name, err)
	p.state.ready = false
	if err == nil && p.spec.Spec.RestartPolicy != corev1.RestartPolicyAlways {
		p.state.succeeded = true
		return p.report(ctx)
	}
	return errors.Join(p.report(ctx), p.startMain(ctx))
}

// probe asks as a kubelet does, from the node.
func (p *pod) probe(probe *corev1.Probe) error {
	if probe == nil || probe.HTTPGet == nil {
		return nil
	}
	port := uint16(probe.HTTPGet.Port.IntVal)
	for _, named := range p.main().Ports {
		if named.Name == probe.HTTPGet.Port.StrVal {
			port = uint16(named.ContainerPort)
		}
	}
	at := netip.AddrPortFrom(p.network.V4, port)
	if host := probe.HTTPGet.Host; host != "" {
		addr, err := netip.ParseAddr(host)
		if err != nil {
			return err
		}
		at = netip.AddrPortFrom(addr, port)
	}
	resp, err := p.node.HTTPClient().Get("http://" + at.String() + probe.HTTPGet.Path)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 400 {
		return fmt.Errorf("%s: %s", probe.HTTPGet.Path, resp.Status)
	}
	return nil
}

// report writes the Pod's status.
func (p *pod) report(ctx context.Context) error {
	is := func(b bool) corev1.ConditionStatus {
		if b {
			return corev1.ConditionTrue
		}
		return corev1.ConditionFalse
	}
	now := metav1.Now()
	c := p.main()
	status := corev1.PodStatus{
		Phase: corev1.PodRunning, StartTime: &now,
		HostIP: p.node.V4.String(), HostIPs: []corev1.HostIP{{IP: p.node.V4.String()}, {IP: p.node.V6.String()}},
		PodIP: p.network.V4.String(), PodIPs: []corev1.PodIP{{IP: p.network.V4.String()}, {IP: p.network.V6.String()}},
		Conditions: []corev1.PodCondition{
			{Type: corev1.PodInitialized, Status: corev1.ConditionTrue, LastTransitionTime: now},
			{Type: corev1.ContainersReady, Status: is(p.state.ready), LastTransitionTime: now},
			{Type: corev1.PodReady, Status: is(p.state.ready), LastTransitionTime: now},
		},
		ContainerStatuses: []corev1.ContainerStatus{{
			Name: c.Name, Image: c.Image, ImageID: c.Image, Ready: p.state.ready, Started: new(true), RestartCount: int32(p.state.starts - 1),
			State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}},
		}},
	}
	if p.state.succeeded {
		status.Phase, status.ContainerStatuses[0].State = corev1.PodSucceeded, corev1.ContainerState{
			Terminated: &corev1.ContainerStateTerminated{FinishedAt: now},
		}
	}
	body, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": p.spec.UID}, "status": status})
	if err != nil {
		return err
	}
	_, err = p.k.w.api.CoreV1().Pods(p.spec.Namespace).Patch(ctx, p.spec.Name, types.StrategicMergePatchType, body, metav1.PatchOptions{}, "status")
	return err
}

// terminate asks the process to end, and kills it when ctx ends before it does.
func (p *pod) terminate(ctx context.Context) error {
	select {
	case <-p.process.Done():
		return nil
	default:
	}
	if err := syscall.Kill(p.process.Pid(), syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-p.process.Done():
		return nil
	case <-ctx.Done():
		return errors.Join(errors.New("it does not end in its time, and is killed"), p.process.Kill())
	}
}

// finish ends what is in the Pod, in the time that it has, and takes its
// network away.
func (p *pod) finish(ctx context.Context) error {
	if l := p.main().Lifecycle; l != nil && l.PreStop != nil && l.PreStop.Sleep != nil {
		<-time.After(time.Duration(l.PreStop.Sleep.Seconds) * time.Second)
	}
	var errs []error
	ctx, cancel := context.WithTimeout(ctx, time.Duration(*p.spec.Spec.TerminationGracePeriodSeconds)*time.Second)
	defer cancel()
	if p.end != nil {
		errs = append(errs, p.end(ctx))
	}
	if p.process != nil {
		errs = append(errs, p.terminate(ctx))
	}
	if p.log != nil {
		errs = append(errs, p.log.Close())
	}
	if p.network != nil && p.network != p.node {
		p.k.mu.Lock()
		defer p.k.mu.Unlock()
		errs = append(errs, p.k.w.RemovePod(p.network))
	}
	return errors.Join(errs...)
}
