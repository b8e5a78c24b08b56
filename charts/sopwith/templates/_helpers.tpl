{{/* Labels by which Deployment and Services find the operator's pod. They can never change. */}}
{{- define "sopwith.selector" -}}
app.kubernetes.io/name: sopwith
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{/* Labels of every object. */}}
{{- define "sopwith.labels" -}}
{{ include "sopwith.selector" . }}
app.kubernetes.io/part-of: sopwith
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{/* The name of an image from {image, version}. */}}
{{- define "sopwith.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ .image.tag | default .version }}
{{- end -}}
{{- end }}

{{/* The folder of a file:// URL; empty for an object store. */}}
{{- define "sopwith.storageFolder" -}}
{{- if hasPrefix "file://" .Values.storage.url }}{{ trimPrefix "file://" .Values.storage.url }}{{ end -}}
{{- end }}
