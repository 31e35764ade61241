package convert

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sluice.dev/sluice/internal/api/v1alpha1"
	"sluice.dev/sluice/internal/model"
)

// maxProblems bounds what one object can say: a slice of a thousand wrong
// addresses is one mistake.
const maxProblems = 10

// The reasons of problems, as Events show them.
const (
	InvalidAddress     = "InvalidAddress"
	InvalidPort        = "InvalidPort"
	InvalidProtocol    = "InvalidProtocol"
	InvalidSourceRange = "InvalidSourceRange"
	NoValidSourceRange = "NoValidSourceRange"
	InvalidPolicy      = "InvalidTrafficPolicy"
	InvalidAffinity    = "InvalidSessionAffinity"
	InvalidAddressType = "InvalidAddressType"
	InvalidPodCIDR     = "InvalidPodCIDR"
	UnknownScheduler   = "UnknownScheduler"
	InvalidType        = "InvalidType"
	InvalidIPMode      = "InvalidIPMode"
	InvalidDrain       = "InvalidDrainTimeout"
	InvalidTriggerTime = "InvalidTriggerTime"
	MoreProblems       = "MoreProblems"

	InvalidRange         = "InvalidRange"
	InvalidPriority      = "InvalidPriority"
	InvalidSelector      = "InvalidSelector"
	InvalidName          = "InvalidName"
	InvalidASN           = "InvalidASN"
	InvalidTime          = "InvalidTime"
	InvalidHops          = "InvalidHops"
	InvalidFamily        = "InvalidFamily"
	InvalidPassword      = "InvalidPassword"
	InvalidCommunity     = "InvalidCommunity"
	InvalidMetric        = "InvalidMetric"
	InvalidLength        = "InvalidLength"
	InvalidRequest       = "InvalidAddressRequest"
	ContradictoryRequest = "ContradictoryAddressRequest"

	InvalidPolicyType = "InvalidPolicyType"
	InvalidPeer       = "InvalidPeer"
	InvalidIPBlock    = "InvalidIPBlock"
	UnknownField      = "UnknownField"
)

// The kinds of objects that have problems.
const (
	ServiceKind       = "Service"
	EndpointSliceKind = "EndpointSlice"
	NodeKind          = "Node"
	NamespaceKind     = "Namespace"
	SecretKind        = "Secret"
	PodKind           = "Pod"
	NetworkPolicyKind = "NetworkPolicy"

	AddressPoolKind      = v1alpha1.AddressPoolKind
	BGPPeerKind          = v1alpha1.BGPPeerKind
	BGPAdvertisementKind = v1alpha1.BGPAdvertisementKind
)

// What to do about a problem, where several fields share it.
const (
	remedyAddress  = "correct or remove it"
	remedyPort     = "use a number from 1 to 65535"
	remedyProtocol = "use TCP, UDP or SCTP"
	remedyPrefix   = `write it as a CIDR, such as "10.0.0.0/8"`
	remedyDrain    = `write it as "90s", "10m" or a number of seconds, from 0 to 24h`
	remedyPolicy   = `use "Cluster" or "Local"; until then it counts as Cluster`
	remedyRange    = `write it as "192.0.2.0/24" or "192.0.2.10-192.0.2.20"`
	remedyTime     = `write it as "9s" or "2m", or remove it`
	remedyRequest  = "until then nothing is allocated, and what the Service has stays"
)

// report collects what is wrong with one object.
type report struct {
	kind     string
	object   model.Name
	uid      string
	problems []model.Problem
	more     int
}

func newReport(kind string, meta *metav1.ObjectMeta) *report {
	return &report{kind: kind, object: nameOf(meta), uid: string(meta.UID)}
}

// add says that a field's value is wrong, why, and what to do about it.
func (r *report) add(reason, field string, value any, why, remedy string) {
	if len(r.problems) == maxProblems {
		r.more++
		return
	}
	r.problems = append(r.problems, r.problem(reason, fmt.Sprintf("%s: %q %s; %s", field, fmt.Sprint(value), why, remedy)))
}

// count is how many problems there are so far.
func (r *report) count() int { return len(r.problems) + r.more }

// list is what was collected; nil when nothing was.
func (r *report) list() []model.Problem {
	if r.more == 0 {
		return r.problems
	}
	return append(r.problems, r.problem(MoreProblems, fmt.Sprintf("and %d problems more; correct these first", r.more)))
}

func (r *report) problem(reason, message string) model.Problem {
	return model.Problem{Kind: r.kind, Object: r.object, UID: r.uid, Reason: reason, Message: message}
}

func nameOf(meta *metav1.ObjectMeta) model.Name {
	return model.Name{Namespace: meta.Namespace, Name: meta.Name}
}
