package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// PeerEstablished is the type of a BGPPeer's condition that every node that is
// to have a session has one.
const PeerEstablished = "Established"

// BGPPeer is a router that nodes tell their routes to. Nodes dial it; nothing
// is accepted from it.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster
// +kubebuilder:printcolumn:name="Address",type=string,JSONPath=`.spec.peerAddress`
// +kubebuilder:printcolumn:name="ASN",type=integer,JSONPath=`.spec.peerASN`
// +kubebuilder:printcolumn:name="Our ASN",type=integer,JSONPath=`.spec.myASN`
// +kubebuilder:printcolumn:name="Established",type=string,JSONPath=`.status.conditions[?(@.type=="Established")].status`
// +kubebuilder:printcolumn:name="Message",type=string,JSONPath=`.status.conditions[?(@.type=="Established")].message`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type BGPPeer struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitzero"`

	// +required
	Spec BGPPeerSpec `json:"spec"`
	// +optional
	Status BGPPeerStatus `json:"status,omitzero"`
}

// Duration is a time in whole seconds, such as "9s" or "2m".
//
// +kubebuilder:validation:MaxLength=20
// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('0s')",message="must be a duration such as 9s or 2m"
type Duration string

// Family is an IP family.
//
// +kubebuilder:validation:Enum=ipv4;ipv6
type Family string

// The families.
const (
	IPv4 Family = "ipv4"
	IPv6 Family = "ipv6"
)

// BGPPeerSpec is how nodes reach a router and what they tell it.
//
// +kubebuilder:validation:XValidation:rule="!has(self.ebgpMultiHop) || self.ebgpMultiHop == 0 || !has(self.ttlSecurity) || !self.ttlSecurity",message="ebgpMultiHop and ttlSecurity exclude each other"
// +kubebuilder:validation:XValidation:rule="!has(self.ebgpMultiHop) || self.ebgpMultiHop == 0 || self.myASN != self.peerASN",message="ebgpMultiHop is for peers of another ASN"
// +kubebuilder:validation:XValidation:rule="!has(self.holdTime) || duration(self.holdTime) >= duration('3s') && duration(self.holdTime) <= duration('65535s')",message="holdTime must be from 3s to 65535s"
// +kubebuilder:validation:XValidation:rule="!has(self.keepaliveTime) || duration(self.keepaliveTime) >= duration('1s')",message="keepaliveTime must be at least 1s"
// +kubebuilder:validation:XValidation:rule="!has(self.keepaliveTime) || has(self.holdTime) || duration(self.keepaliveTime) < duration('9s')",message="keepaliveTime must be less than holdTime, which is 9s"
// +kubebuilder:validation:XValidation:rule="!has(self.keepaliveTime) || !has(self.holdTime) || duration(self.keepaliveTime) < duration(self.holdTime)",message="keepaliveTime must be less than holdTime"
// +kubebuilder:validation:XValidation:rule="!has(self.connectRetryTime) || duration(self.connectRetryTime) >= duration('1s') && duration(self.connectRetryTime) <= duration('65535s')",message="connectRetryTime must be from 1s to 65535s"
// +kubebuilder:validation:XValidation:rule="!has(self.passwordFile)",message="passwordFile is for objects in files; use passwordSecret"
type BGPPeerSpec struct {
	// PeerAddress is the router's address.
	// +kubebuilder:validation:MaxLength=45
	// +kubebuilder:validation:Pattern=`^[0-9A-Fa-f:.]+$`
	// +required
	PeerAddress string `json:"peerAddress"`
	// PeerPort is the port it listens on; 0: 179.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=65535
	// +optional
	PeerPort int32 `json:"peerPort,omitempty"`
	// PeerASN is the router's autonomous system number.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=4294967294
	// +required
	PeerASN int64 `json:"peerASN"`
	// MyASN is our autonomous system number. With the router's own the session
	// is an internal one (iBGP).
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=4294967294
	// +required
	MyASN int64 `json:"myASN"`

	// HoldTime is after how long a silent peer counts as gone, from "3s" on.
	// Default: "9s". The lower of both sides' counts.
	// +optional
	HoldTime Duration `json:"holdTime,omitempty"`
	// KeepaliveTime is how often each side says that it is alive, less than
	// the hold time. Default: a third of it.
	// +optional
	KeepaliveTime Duration `json:"keepaliveTime,omitempty"`
	// ConnectRetryTime is how long to wait before dialling again. Default:
	// "2s".
	// +optional
	ConnectRetryTime Duration `json:"connectRetryTime,omitempty"`

	// SourceAddress is the node's address to dial from. Default: the kernel
	// chooses.
	// +kubebuilder:validation:MaxLength=45
	// +kubebuilder:validation:Pattern=`^[0-9A-Fa-f:.]*$`
	// +optional
	SourceAddress string `json:"sourceAddress,omitempty"`
	// EBGPMultiHop is the TTL of what is sent to a peer of another ASN that is
	// not directly connected: how many hops away it may be. 0: it is directly
	// connected. It excludes ttlSecurity.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=255
	// +optional
	EBGPMultiHop int32 `json:"ebgpMultiHop,omitempty"`
	// TTLSecurity takes only packets of a directly connected peer (RFC 5082).
	// The router has to be told the same. It excludes ebgpMultiHop.
	// +optional
	TTLSecurity bool `json:"ttlSecurity,omitempty"`
	// PasswordSecret names the Secret of type kubernetes.io/basic-auth, in the
	// agents' --secret-namespace, whose key "password" is the session's
	// password (RFC 2385). There is no session without the Secret.
	// +kubebuilder:validation:MaxLength=253
	// +optional
	PasswordSecret string `json:"passwordSecret,omitempty"`
	// PasswordFile, only in objects that are read from files, names a file that
	// holds the password. A relative path begins at the directory of objects.
	// +optional
	PasswordFile string `json:"passwordFile,omitempty"`

	// NodeSelectors match the labels of the nodes that dial the peer; one of
	// them has to. Default: all nodes.
	// +optional
	NodeSelectors []metav1.LabelSelector `json:"nodeSelectors,omitempty"`
	// Families of the routes told to the peer. Default: both.
	// +listType=set
	// +kubebuilder:validation:MaxItems=2
	// +optional
	Families []Family `json:"families,omitempty"`
	// GracefulRestart has the router keep our routes while an agent restarts
	// (RFC 4724). A node that dies keeps its routes for as long.
	// +optional
	GracefulRestart *GracefulRestart `json:"gracefulRestart,omitempty"`
}

// GracefulRestart is whether and for how long a router keeps routes.
type GracefulRestart struct {
	// +kubebuilder:default=true
	// +optional
	Enabled *bool `json:"enabled,omitempty"`
	// RestartTime is how long the router keeps routes after a session broke
	// off, from "1s" to "4095s". Default: "15s".
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s') && duration(self) <= duration('4095s')",message="must be from 1s to 4095s"
	// +optional
	RestartTime Duration `json:"restartTime,omitempty"`
}

// BGPPeerStatus is how nodes get on with a peer.
type BGPPeerStatus struct {
	// +listType=map
	// +listMapKey=type
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// Failing are the nodes that should have a session and have none.
	// +listType=map
	// +listMapKey=node
	// +optional
	Failing []FailingNode `json:"failing,omitempty"`
}

// FailingNode is a node without a session.
type FailingNode struct {
	// +required
	Node string `json:"node"`
	// Since is when it last had one, or began to try.
	// +optional
	Since metav1.Time `json:"since,omitzero"`
	// Error is what went wrong last.
	// +optional
	Error string `json:"error,omitempty"`
}

// BGPPeerList is a list of BGPPeers.
//
// +kubebuilder:object:root=true
type BGPPeerList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`

	Items []BGPPeer `json:"items"`
}
