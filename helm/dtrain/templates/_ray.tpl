{{/* One Ray node, for both ways to run it. Takes a dict: root, part (its values), image, kind (head or worker), name. */}}

{{- define "dtrain.rayEnv" -}}
- name: POD_IP
  valueFrom: {fieldRef: {fieldPath: status.podIP}}
- {name: HOME, value: /tmp}
{{- with .part.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "dtrain.rayEnvFrom" -}}
{{- range list .root.Values.credentials.kafka.existingSecret .root.Values.credentials.objectStore.existingSecret }}
{{- with . }}
- secretRef: {name: {{ . }}}
{{- end }}
{{- end }}
{{- end -}}

{{- define "dtrain.rayResources" -}}
{{- if eq .kind "head" -}}
{{ toYaml .part.resources }}
{{- else -}}
requests:
  cpu: {{ .part.cpus | quote }}
  memory: {{ .part.memory }}
limits:
  cpu: {{ .part.cpus | quote }}
  memory: {{ .part.memory }}
  {{- if .part.gpus }}
  {{ default "nvidia.com/gpu" .part.gpuResource }}: {{ .part.gpus | quote }}
  {{- end }}
{{- end -}}
{{- end -}}

{{- define "dtrain.rayStoreMiB" -}}
{{ default 1024 .part.objectStoreMiB | int }}
{{- end -}}

{{- define "dtrain.rayMounts" -}}
- {name: tmp, mountPath: /tmp}
- {name: shared-memory, mountPath: /dev/shm}
- {name: shared, mountPath: /var/lib/dtrain/shared}
- {name: ray-token, mountPath: /etc/dtrain/ray, readOnly: true}
{{- if .root.Values.tests.enabled }}
- {name: smoke, mountPath: /etc/dtrain/smoke, readOnly: true}
{{- end }}
{{- if .root.Values.credentials.kafka.existingSecret }}
- {name: kafka, mountPath: /etc/dtrain/kafka, readOnly: true}
{{- end }}
{{- end -}}

{{- define "dtrain.rayVolumes" -}}
- {name: tmp, emptyDir: {}}
- name: shared-memory
  emptyDir:
    medium: Memory
    sizeLimit: {{ add (include "dtrain.rayStoreMiB" . | int) 256 }}Mi
{{ include "dtrain.sharedVolume" .root }}
- name: ray-token
  secret:
    secretName: {{ include "dtrain.raySecret" .root }}
    items: [{key: {{ .root.Values.auth.ray.key }}, path: token}]
{{- if .root.Values.tests.enabled }}
- name: smoke
  configMap: {name: {{ include "dtrain.fullname" .root }}-smoke}
{{- end }}
{{- with .root.Values.credentials.kafka.existingSecret }}
- name: kafka
  secret: {secretName: {{ . }}}
{{- end }}
{{- end -}}

{{- define "dtrain.rayProbes" -}}
{{- $port := ternary .root.Values.ray.port .root.Values.ray.nodePort (eq .kind "head") -}}
startupProbe:
  tcpSocket: {port: {{ $port }}}
  periodSeconds: 5
  failureThreshold: 72
readinessProbe:
  tcpSocket: {port: {{ $port }}}
  periodSeconds: 5
livenessProbe:
  tcpSocket: {port: {{ $port }}}
  periodSeconds: 10
  failureThreshold: 6
{{- end -}}

{{- define "dtrain.rayArgs" -}}
{{- if eq .kind "head" }}
- ray-head
- --port={{ .root.Values.ray.port }}
{{- else }}
- ray-worker
- --head={{ include "dtrain.rayAddress" .root }}
- --gpus={{ default 0 .part.gpus }}
{{- end }}
- --cpus={{ .part.cpus }}
- --node-ip=$(POD_IP)
- --node-port={{ .root.Values.ray.nodePort }}
- --store-bytes={{ mul (include "dtrain.rayStoreMiB" . | int) 1048576 }}
- --folder=/tmp/ray
- --ray-token-file=/etc/dtrain/ray/token
{{- end -}}

{{- define "dtrain.rayPod" -}}
metadata:
  labels:
    {{- include "dtrain.selector" .root | nindent 4 }}
    app.kubernetes.io/component: {{ .name }}
    dtrain.io/ray: "true"
    {{- with .part.labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    checksum/auth: {{ toJson .root.Values.auth | sha256sum | quote }}
    {{- with .part.annotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "dtrain.rayAccount" .root }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ .root.Values.ray.terminationGracePeriodSeconds }}
  securityContext: {{- include "dtrain.podSecurity" .root | nindent 4 }}
  {{- with .root.Values.image.pullSecrets }}
  imagePullSecrets: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with include "dtrain.placement" .part }}
  {{- . | nindent 2 }}
  {{- end }}
  containers:
    - name: ray
      image: {{ include "dtrain.image" (list .root .image) }}
      imagePullPolicy: {{ .root.Values.image.pullPolicy }}
      {{- if eq .root.Values.ray.mode "standalone" }}
      args: {{- include "dtrain.rayArgs" . | nindent 8 }}
      {{- end }}
      env:
        {{- include "dtrain.rayEnv" . | nindent 8 }}
        {{- if eq .root.Values.ray.mode "raycluster" }}
        {{- include "dtrain.kubeRayEnv" . | nindent 8 }}
        {{- end }}
      {{- with include "dtrain.rayEnvFrom" . }}
      envFrom: {{- . | nindent 8 }}
      {{- end }}
      ports:
        {{- if eq .kind "head" }}
        - {name: gcs, containerPort: {{ .root.Values.ray.port }}}
        {{- end }}
        - {name: raylet, containerPort: {{ .root.Values.ray.nodePort }}}
      {{- include "dtrain.rayProbes" . | nindent 6 }}
      resources: {{- include "dtrain.rayResources" . | nindent 8 }}
      securityContext: {{- include "dtrain.containerSecurity" .root | nindent 8 }}
      volumeMounts: {{- include "dtrain.rayMounts" . | nindent 8 }}
  volumes: {{- include "dtrain.rayVolumes" . | nindent 4 }}
{{- end -}}

{{/* KubeRay writes `ray start` itself; what `dtrain ray-worker` would set in the environment stands in the pod. */}}
{{- define "dtrain.kubeRayEnv" -}}
- {name: RAY_AUTH_MODE, value: token}
- {name: RAY_AUTH_TOKEN_PATH, value: /etc/dtrain/ray/token}
- {name: RAY_USAGE_STATS_ENABLED, value: "0"}
- {name: RAY_ENABLE_UV_RUN_RUNTIME_ENV, value: "0"}
- {name: RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S, value: "0"}
{{- end -}}

{{- define "dtrain.rayStartParams" -}}
num-cpus: {{ .part.cpus | quote }}
num-gpus: {{ default 0 .part.gpus | quote }}
node-manager-port: {{ .root.Values.ray.nodePort | quote }}
object-store-memory: {{ mul (include "dtrain.rayStoreMiB" . | int) 1048576 | quote }}
min-worker-port: "0"
max-worker-port: "0"
temp-dir: /tmp/ray
{{- if eq .kind "head" }}
port: {{ .root.Values.ray.port | quote }}
include-dashboard: "false"
{{- end }}
{{- end -}}
