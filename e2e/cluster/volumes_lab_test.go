//go:build lab

package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sluice.dev/sluice/e2e/topo"
)

// What deploy/image/Dockerfile says of the image.
const (
	entrypoint = "/usr/bin/sluice"
	imagePath  = "/usr/sbin:/usr/bin"
	imageUser  = 65534
)

// image is a container's image without registry and tag.
func image(c corev1.Container) string {
	name, _, _ := strings.Cut(filepath.Base(c.Image), ":")
	return name
}

// start starts a container of the image of sluice, which is the only one that
// has programs.
func (p *pod) start(ctx context.Context, c corev1.Container) (*topo.Process, error) {
	if image(c) != sluiceImage {
		return nil, fmt.Errorf("container %s: there is no image %s", c.Name, c.Image)
	}
	spec, err := p.container(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("container %s: %w", c.Name, err)
	}
	text, err := json.Marshal(spec)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(p.dir, c.Name+".json")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return nil, err
	}
	return p.network.Start(p.log, p.k.self, path)
}

func (p *pod) container(ctx context.Context, c corev1.Container) (spec container, err error) {
	spec.Image = p.k.w.image
	if spec.Work, err = os.MkdirTemp(p.dir, c.Name+"-"); err != nil {
		return spec, err
	}
	for _, m := range c.VolumeMounts {
		from, err := p.volume(ctx, m)
		if err != nil {
			return spec, fmt.Errorf("volume %s: %w", m.Name, err)
		}
		spec.Mounts = append(spec.Mounts, bind{From: from, To: m.MountPath, ReadOnly: m.ReadOnly})
	}
	env, err := p.environment(ctx, c)
	if err != nil {
		return spec, err
	}
	spec.Args = append(spec.Args, c.Command...)
	if len(spec.Args) == 0 {
		spec.Args = []string{entrypoint}
	}
	spec.Args = append(spec.Args, c.Args...)
	for i, arg := range spec.Args {
		spec.Args[i] = expand(arg, env)
	}
	spec.Env = append(spec.Env, "PATH="+imagePath)
	for k, v := range env {
		spec.Env = append(spec.Env, k+"="+v)
	}
	return spec, spec.secure(p.spec.Spec.SecurityContext, c.SecurityContext)
}

// secure takes over a container's security context, and what the Pod's has
// beside it. Without one it has what container runtimes give.
func (spec *container) secure(of *corev1.PodSecurityContext, c *corev1.SecurityContext) error {
	if c == nil {
		c = &corev1.SecurityContext{}
	}
	if of == nil {
		of = &corev1.PodSecurityContext{}
	}
	number := func(own, pods *int64) int {
		switch {
		case own != nil:
			return int(*own)
		case pods != nil:
			return int(*pods)
		}
		return imageUser
	}
	spec.UID, spec.GID = number(c.RunAsUser, of.RunAsUser), number(c.RunAsGroup, of.RunAsGroup)
	if nonRoot := c.RunAsNonRoot; nonRoot != nil && *nonRoot && spec.UID == 0 {
		return errors.New("it is not to be root, and has no user")
	}
	spec.Privileged = c.Privileged != nil && *c.Privileged
	spec.ReadOnlyRoot = c.ReadOnlyRootFilesystem != nil && *c.ReadOnlyRootFilesystem
	spec.NoNewPrivs = c.AllowPrivilegeEscalation != nil && !*c.AllowPrivilegeEscalation
	spec.Capabilities = []uintptr{}
	if c.Capabilities == nil || len(c.Capabilities.Drop) != 1 || c.Capabilities.Drop[0] != "ALL" {
		if !spec.Privileged {
			return errors.New("it does not drop ALL capabilities")
		}
		return nil
	}
	for _, name := range c.Capabilities.Add {
		number, known := capabilities()[string(name)]
		if !known {
			return fmt.Errorf("capability %s: not known here", name)
		}
		spec.Capabilities = append(spec.Capabilities, number)
	}
	return nil
}

// expand puts variables into an argument.
func expand(arg string, env map[string]string) string {
	for k, v := range env {
		arg = strings.ReplaceAll(arg, "$("+k+")", v)
	}
	return arg
}

// environment is a container's, with what a kubelet adds.
func (p *pod) environment(ctx context.Context, c corev1.Container) (map[string]string, error) {
	api, err := p.k.w.api.CoreV1().Services("default").Get(ctx, "kubernetes", metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	env := map[string]string{
		"KUBERNETES_SERVICE_HOST": api.Spec.ClusterIP,
		"KUBERNETES_SERVICE_PORT": strconv.Itoa(int(api.Spec.Ports[0].Port)),
	}
	p.k.mu.Lock()
	maps.Copy(env, p.k.env)
	p.k.mu.Unlock()
	for _, e := range c.Env {
		value, is, err := p.value(ctx, e)
		if err != nil {
			return nil, fmt.Errorf("variable %s: %w", e.Name, err)
		}
		if is {
			env[e.Name] = value
		}
	}
	return env, nil
}

func (p *pod) value(ctx context.Context, e corev1.EnvVar) (value string, is bool, err error) {
	from := e.ValueFrom
	switch {
	case from == nil:
		return e.Value, true, nil
	case from.FieldRef != nil:
		value, err := p.field(from.FieldRef.FieldPath)
		return value, true, err
	case from.ConfigMapKeyRef != nil:
		ref := from.ConfigMapKeyRef
		m, err := p.k.w.api.CoreV1().ConfigMaps(p.spec.Namespace).Get(ctx, ref.Name, metav1.GetOptions{})
		optional := ref.Optional != nil && *ref.Optional
		if err != nil {
			if optional && apierrors.IsNotFound(err) {
				err = nil
			}
			return "", false, err
		}
		value, is := m.Data[ref.Key]
		if !is && !optional {
			return "", false, fmt.Errorf("ConfigMap %s has no key %s", ref.Name, ref.Key)
		}
		return value, is, nil
	}
	return "", false, errors.New("a source that is not known here")
}

// field is what the downward API tells.
func (p *pod) field(path string) (string, error) {
	switch path {
	case "spec.nodeName":
		return p.node.Name, nil
	case "metadata.name":
		return p.spec.Name, nil
	case "metadata.namespace":
		return p.spec.Namespace, nil
	case "status.podIP":
		return p.network.V4.String(), nil
	case "status.hostIP":
		return p.node.V4.String(), nil
	}
	return "", fmt.Errorf("field %s: not known here", path)
}

// volume is a mount's source on this machine.
func (p *pod) volume(ctx context.Context, m corev1.VolumeMount) (string, error) {
	for _, v := range p.spec.Spec.Volumes {
		if v.Name != m.Name {
			continue
		}
		dir := filepath.Join(p.dir, "volumes", v.Name)
		var err error
		switch {
		case v.HostPath != nil:
			dir, err = p.hostPath(v.HostPath)
		case v.EmptyDir != nil:
			err = os.MkdirAll(dir, 0o777)
		case v.ConfigMap != nil:
			err = p.project(ctx, dir, corev1.VolumeProjection{ConfigMap: &corev1.ConfigMapProjection{
				LocalObjectReference: v.ConfigMap.LocalObjectReference, Items: v.ConfigMap.Items, Optional: v.ConfigMap.Optional,
			}})
		case v.Projected != nil:
			for _, source := range v.Projected.Sources {
				err = errors.Join(err, p.project(ctx, dir, source))
			}
		default:
			err = errors.New("a kind that is not known here")
		}
		return filepath.Join(dir, m.SubPath), err
	}
	return "", errors.New("there is no such volume")
}

// hostPath is a path of the node's. What is made when it is missing each node
// has for itself; the rest is this machine's.
func (p *pod) hostPath(h *corev1.HostPathVolumeSource) (string, error) {
	own := filepath.Join(p.k.w.dir, p.node.Name, h.Path)
	kind := corev1.HostPathUnset
	if h.Type != nil {
		kind = *h.Type
	}
	switch kind {
	case corev1.HostPathFileOrCreate:
		return own, errors.Join(os.MkdirAll(filepath.Dir(own), 0o755), touch(own))
	case corev1.HostPathDirectoryOrCreate:
		return own, os.MkdirAll(own, 0o755)
	}
	if !exists(h.Path) {
		return "", fmt.Errorf("the node has no %s", h.Path)
	}
	return h.Path, nil
}

// project writes one source of a volume into its directory.
func (p *pod) project(ctx context.Context, dir string, source corev1.VolumeProjection) error {
	files := map[string]string{}
	switch {
	case source.ServiceAccountToken != nil:
		token, err := p.token(ctx, source.ServiceAccountToken)
		if err != nil {
			return err
		}
		files[source.ServiceAccountToken.Path] = token
	case source.ConfigMap != nil:
		m, err := p.k.w.api.CoreV1().ConfigMaps(p.spec.Namespace).Get(ctx, source.ConfigMap.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, item := range source.ConfigMap.Items {
			files[item.Path] = m.Data[item.Key]
		}
		if len(source.ConfigMap.Items) == 0 {
			files = m.Data
		}
	case source.DownwardAPI != nil:
		for _, item := range source.DownwardAPI.Items {
			value, err := p.field(item.FieldRef.FieldPath)
			if err != nil {
				return err
			}
			files[item.Path] = value
		}
	default:
		return errors.New("a source that is not known here")
	}
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			return err
		}
	}
	return nil
}

// token asks for a token of the Pod's ServiceAccount that is bound to the Pod.
func (p *pod) token(ctx context.Context, source *corev1.ServiceAccountTokenProjection) (string, error) {
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: source.ExpirationSeconds,
		BoundObjectRef:    &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: p.spec.Name, UID: p.spec.UID},
	}}
	if source.Audience != "" {
		request.Spec.Audiences = []string{source.Audience}
	}
	made, err := p.k.w.api.CoreV1().ServiceAccounts(p.spec.Namespace).CreateToken(ctx, p.spec.Spec.ServiceAccountName, request, metav1.CreateOptions{})
	if err != nil {
		return "", err
	}
	return made.Status.Token, nil
}

// tokenOf is the token that a Pod was given.
func (k *kubelet) tokenOf(p *pod) (string, error) {
	found, err := filepath.Glob(filepath.Join(p.dir, "volumes", "*", "token"))
	if err != nil || len(found) != 1 {
		return "", fmt.Errorf("%s has the tokens %q: %w", p.spec.Name, found, err)
	}
	return readAll(found[0])
}

func readAll(path string) (string, error) {
	text, err := os.ReadFile(path)
	return string(text), err
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
