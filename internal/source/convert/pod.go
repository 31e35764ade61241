package convert

import (
	"fmt"
	"maps"
	"math"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"

	"sluice.dev/sluice/internal/model"
)

// Pod is a Pod as NetworkPolicy reads it. ok is always true; it is there so that
// all conversions look alike.
func Pod(p *corev1.Pod) (pod model.Pod, ok bool, problems []model.Problem) {
	r := newReport(PodKind, &p.ObjectMeta)
	return model.Pod{
		Name:        nameOf(&p.ObjectMeta),
		UID:         string(p.UID),
		Node:        p.Spec.NodeName,
		Labels:      maps.Clone(p.Labels),
		Addrs:       podAddrs(&p.Status, r),
		HostNetwork: p.Spec.HostNetwork,
		Done:        p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed,
		Ports:       containerPorts(&p.Spec, r),
		Grace:       grace(p.Spec.TerminationGracePeriodSeconds),
	}, true, r.list()
}

// podAddrs are the addresses of both families; podIP is the first of them, and
// all that old objects have.
func podAddrs(s *corev1.PodStatus, r *report) []netip.Addr {
	if len(s.PodIPs) == 0 && s.PodIP != "" {
		return addresses([]string{s.PodIP}, "status.podIP", parseVIP, r)
	}
	texts := make([]string, len(s.PodIPs))
	for i, ip := range s.PodIPs {
		texts[i] = ip.IP
	}
	return addresses(texts, "status.podIPs", parseVIP, r)
}

// containerPorts are the ports that have a name. Init containers count: those
// that go on beside the others serve as they do. A name may stand for several
// numbers.
func containerPorts(s *corev1.PodSpec, r *report) []model.ContainerPort {
	var found distinct[model.ContainerPort]
	read := func(list string, containers []corev1.Container) {
		for i := range containers {
			for j, given := range containers[i].Ports {
				if given.Name == "" {
					continue
				}
				if p, ok := containerPort(given, fmt.Sprintf("spec.%s[%d].ports[%d]", list, i, j), r); ok {
					found.add(p)
				}
			}
		}
	}
	read("initContainers", s.InitContainers)
	read("containers", s.Containers)
	return found.list
}

func containerPort(given corev1.ContainerPort, field string, r *report) (model.ContainerPort, bool) {
	proto, known := protocol(given.Protocol)
	if !known {
		r.add(InvalidProtocol, field+".protocol", given.Protocol, "is not a protocol of ports", remedyProtocol)
		return model.ContainerPort{}, false
	}
	n, ok := port(given.ContainerPort)
	if !ok {
		r.add(InvalidPort, field+".containerPort", given.ContainerPort, "is not a port number", remedyPort)
	}
	return model.ContainerPort{Name: given.Name, Protocol: proto, Port: n}, ok
}

// grace is how long a pod that is deleted may take; nil: what the API defaults it
// to. The API takes any number.
func grace(seconds *int64) time.Duration {
	n := int64(corev1.DefaultTerminationGracePeriodSeconds)
	if seconds != nil {
		n = min(max(*seconds, 0), int64(math.MaxInt64/time.Second))
	}
	return time.Duration(n) * time.Second
}
