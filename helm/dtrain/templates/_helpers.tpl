{{/* The longest name made of it is a StatefulSet's: 32, "-ray-" and 15 of a group. Past 52 its pods could not be labelled with their revision. */}}
{{- define "dtrain.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 32 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 32 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 32 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "dtrain.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "dtrain.labels" -}}
{{ include "dtrain.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: dtrain
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* dtrain.image: list of root and repository */}}
{{- define "dtrain.image" -}}
{{- $root := index . 0 -}}
{{- with $root.Values.image.registry }}{{ trimSuffix "/" . }}/{{ end -}}
{{ index . 1 }}:{{ default $root.Chart.AppVersion $root.Values.image.tag }}
{{- end -}}

{{- define "dtrain.apiSecret" -}}
{{ default (printf "%s-api" (include "dtrain.fullname" .)) .Values.auth.api.existingSecret }}
{{- end -}}

{{- define "dtrain.raySecret" -}}
{{ default (printf "%s-ray" (include "dtrain.fullname" .)) .Values.auth.ray.existingSecret }}
{{- end -}}

{{- define "dtrain.controlPlaneAccount" -}}
{{- $made := ternary (printf "%s-control-plane" (include "dtrain.fullname" .)) "default" .Values.serviceAccounts.create -}}
{{ default $made .Values.serviceAccounts.controlPlaneName }}
{{- end -}}

{{- define "dtrain.rayAccount" -}}
{{- $made := ternary (printf "%s-ray" (include "dtrain.fullname" .)) "default" .Values.serviceAccounts.create -}}
{{ default $made .Values.serviceAccounts.rayName }}
{{- end -}}

{{/* Where the head answers: with KubeRay it names the Service after the RayCluster. */}}
{{- define "dtrain.rayAddress" -}}
{{- if eq .Values.ray.mode "external" -}}
{{ .Values.ray.externalAddress }}
{{- else if eq .Values.ray.mode "raycluster" -}}
{{ include "dtrain.fullname" . }}-head-svc:{{ .Values.ray.port }}
{{- else -}}
{{ include "dtrain.fullname" . }}-ray-head:{{ .Values.ray.port }}
{{- end -}}
{{- end -}}

{{/* What pod security "restricted" asks for. */}}
{{- define "dtrain.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ int64 .Values.podSecurity.runAsUser }}
runAsGroup: {{ int64 .Values.podSecurity.runAsUser }}
fsGroup: {{ int64 .Values.podSecurity.runAsUser }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "dtrain.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* dtrain.placement: where a pod may run, from the values of its part */}}
{{- define "dtrain.placement" -}}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- end -}}

{{- define "dtrain.sharedVolume" -}}
{{- if .Values.sharedStorage.enabled -}}
- name: shared
  persistentVolumeClaim:
    claimName: {{ default (printf "%s-shared" (include "dtrain.fullname" .)) .Values.sharedStorage.existingClaim }}
{{- else -}}
- name: shared
  emptyDir: {}
{{- end -}}
{{- end -}}

{{/* The peers of a NetworkPolicy that are the release's own processes. */}}
{{- define "dtrain.ours" -}}
- podSelector:
    matchLabels: {{- include "dtrain.selector" . | nindent 6 }}
    matchExpressions: [{key: app.kubernetes.io/component, operator: NotIn, values: [smoke-test]}]
{{- end -}}

{{- define "dtrain.egress" -}}
- to: {{- include "dtrain.ours" . | nindent 4 }}
- to:
    - namespaceSelector: {}
      podSelector: {matchLabels: {k8s-app: kube-dns}}
  ports:
    - {protocol: UDP, port: 53}
    - {protocol: TCP, port: 53}
{{- with .Values.networkPolicy.egress.rules }}
{{ toYaml . }}
{{- end }}
{{- end }}
