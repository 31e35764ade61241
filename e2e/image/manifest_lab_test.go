//go:build lab

package image

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/template"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// Where the manifests are, seen from this directory.
const (
	daemonSet   = "../../deploy/base/agent.yaml"
	configMap   = "../../deploy/base/config.yaml"
	cleanupPods = "../../deploy/cleanup/pods.gotemplate"
)

// read decodes a file with one object.
func read[O any](path string) (object O, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return object, err
	}
	return object, yaml.UnmarshalStrict(text, &object)
}

// agentPod is the Pod of the DaemonSet.
func agentPod() (corev1.PodSpec, error) {
	d, err := read[appsv1.DaemonSet](daemonSet)
	return d.Spec.Template.Spec, err
}

// cleanupPod is the Pod that an agent's gives rise to when Sluice is removed.
func cleanupPod(of corev1.PodSpec) (corev1.PodSpec, error) {
	text, err := os.ReadFile(cleanupPods)
	if err != nil {
		return corev1.PodSpec{}, err
	}
	parsed, err := template.New("").Parse(string(text))
	if err != nil {
		return corev1.PodSpec{}, err
	}
	// As kubectl does it: of the object's JSON.
	var list map[string]any
	of.NodeName = "node1"
	items, err := yaml.Marshal(corev1.PodList{Items: []corev1.Pod{{Spec: of}}})
	if err == nil {
		err = yaml.Unmarshal(items, &list)
	}
	var out bytes.Buffer
	if err == nil {
		err = parsed.Execute(&out, list)
	}
	if err != nil {
		return corev1.PodSpec{}, err
	}
	_, document, _ := strings.Cut(out.String(), "\n---\n")
	var pod corev1.Pod
	return pod.Spec, yaml.UnmarshalStrict([]byte(document), &pod)
}

// jailOf is the jail of a container, on the node of a name. files are the
// directories that stand for its ConfigMaps.
func (w *world) jailOf(pod corev1.PodSpec, c corev1.Container, files map[string]string) (jail, error) {
	j := jail{Root: w.root, Args: c.Args, Command: len(c.Command) > 0}
	if j.Command {
		j.Args = c.Command
	}
	for i, a := range j.Args {
		j.Args[i] = strings.ReplaceAll(a, "$(NODE_NAME)", w.Nodes[0].Name)
	}
	for _, name := range c.SecurityContext.Capabilities.Add {
		j.Capabilities = append(j.Capabilities, string(name))
	}
	for _, m := range c.VolumeMounts {
		from, err := source(pod, m.Name, files)
		if err != nil {
			return j, err
		}
		j.Mounts = append(j.Mounts, mount{From: from, To: m.MountPath, ReadOnly: m.ReadOnly})
	}
	return j, nil
}

// source is what a volume is on the host. What a kubelet would make is made.
func source(pod corev1.PodSpec, volume string, files map[string]string) (string, error) {
	for _, v := range pod.Volumes {
		switch {
		case v.Name != volume:
		case v.ConfigMap != nil && files[v.ConfigMap.Name] != "":
			return files[v.ConfigMap.Name], nil
		case v.HostPath == nil:
		case v.HostPath.Type != nil && *v.HostPath.Type == corev1.HostPathFileOrCreate:
			f, err := os.OpenFile(v.HostPath.Path, os.O_CREATE, 0o600)
			if err != nil {
				return "", err
			}
			return v.HostPath.Path, f.Close()
		default:
			return v.HostPath.Path, nil
		}
	}
	return "", fmt.Errorf("volume %s: no source that the test knows", volume)
}

// configuration writes the ConfigMap's files into a directory.
func configuration(dir string) error {
	m, err := read[corev1.ConfigMap](configMap)
	if err != nil {
		return err
	}
	for name, text := range m.Data {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}
