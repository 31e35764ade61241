{{- define "sluice.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* Labels of an object of one component: dict "component" "agent". */}}
{{- define "sluice.labels" -}}
app.kubernetes.io/name: sluice
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* The configuration file: one document or two. */}}
{{- define "sluice.config" -}}
{{ merge (dict "apiVersion" "config.sluice.dev/v1alpha1" "kind" "AgentConfiguration") .Values.config | toYaml }}
{{- with .Values.kubeProxyConfig }}
---
{{ merge (dict "apiVersion" "kubeproxy.config.k8s.io/v1alpha1" "kind" "KubeProxyConfiguration") . | toYaml }}
{{- end }}
{{- end }}

{{- define "sluice.subject" -}}
- kind: ServiceAccount
  name: sluice-{{ .component }}
  namespace: {{ .namespace }}
{{- end }}
