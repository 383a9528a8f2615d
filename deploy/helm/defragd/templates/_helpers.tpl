{{- define "defragd.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 53 | trimSuffix "-" -}}
{{- else if contains "defragd" .Release.Name -}}
{{- .Release.Name | trunc 53 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-defragd" .Release.Name | trunc 53 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* The first becomes Prometheus' job, which alerts/ calls defragd: do not change it. */}}
{{- define "defragd.selectorLabels" -}}
app.kubernetes.io/name: defragd
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "defragd.labels" -}}
{{ include "defragd.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* Labels of the CronJobs' pods, which the Service and the Deployment must not select. */}}
{{- define "defragd.runSelectorLabels" -}}
app.kubernetes.io/name: defragd-run
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "defragd.runLabels" -}}
{{ include "defragd.runSelectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "defragd.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (include "defragd.fullname" .) -}}
{{- end -}}

{{/* The headless Service that gives each replica a DNS name. */}}
{{- define "defragd.replicasName" -}}
{{ include "defragd.fullname" . }}-replicas
{{- end -}}

{{- define "defragd.configMapName" -}}
{{- .Values.existingConfigMap | default (printf "%s-config" (include "defragd.fullname" .)) -}}
{{- end -}}

{{- define "defragd.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "defragd.port" -}}
{{- regexFind "[0-9]+$" .Values.listenAddress -}}
{{- end -}}

{{/* The UID that the pod runs with, and that must own the journal. */}}
{{- define "defragd.runAsUser" -}}
{{- if .Values.credentials.hostPath.enabled -}}
{{ int .Values.credentials.hostPath.runAsUser }}
{{- else -}}
65532
{{- end -}}
{{- end -}}

{{/* A volume for a journal. */}}
{{- define "defragd.claim" -}}
spec:
  accessModes:
    {{- toYaml .Values.persistence.pvc.accessModes | nindent 4 }}
  {{- with .Values.persistence.pvc.storageClassName }}
  storageClassName: {{ . }}
  {{- end }}
  resources:
    requests:
      storage: {{ .Values.persistence.pvc.size }}
{{- end -}}

{{/* Whether the clusters are divided among the pods. */}}
{{- define "defragd.sharded" -}}
{{- if gt (int .Values.shards.total) 1 -}}yes{{- end -}}
{{- end -}}

{{/* Whether several pods may act, each with its own name and journal: replicas one at a time, shards on their own clusters. */}}
{{- define "defragd.several" -}}
{{- if and (or (gt (int .Values.replicas) 1) (include "defragd.sharded" .)) (not .Values.exporterOnly) -}}yes{{- end -}}
{{- end -}}

{{/* Whether the pods are numbered. */}}
{{- define "defragd.numbered" -}}
{{- if or (include "defragd.several" .) (include "defragd.sharded" .) -}}yes{{- end -}}
{{- end -}}

{{/* Whether there is a lock: an exporter has none. */}}
{{- define "defragd.lock" -}}
{{- if and (ne .Values.lock.kind "none") (not .Values.exporterOnly) -}}yes{{- end -}}
{{- end -}}

{{/* Whether the lock uses Leases. */}}
{{- define "defragd.leases" -}}
{{- if and (include "defragd.lock" .) (eq .Values.lock.kind "kubernetes") -}}yes{{- end -}}
{{- end -}}

{{/* Whether the pods use Kubernetes' API; only then they have a token for it. */}}
{{- define "defragd.apiToken" -}}
{{- if or .Values.rbac.podsGate .Values.rbac.nodesGate .Values.rbac.events (include "defragd.leases" .) }}true{{ else }}false{{ end -}}
{{- end -}}

{{/* One permission of the service account, and its binding: in all namespaces with `everywhere`, else in `namespace` or its own. */}}
{{- define "defragd.permission" -}}
{{- $kind := ternary "ClusterRole" "Role" (hasKey . "everywhere") }}
{{- $namespace := .namespace | default .root.Release.Namespace }}
{{- $name := printf "%s-%s" (include "defragd.fullname" .root) .what }}
{{- if or (hasKey . "everywhere") (ne $namespace .root.Release.Namespace) }}
{{- $name = printf "%s-%s" .root.Release.Namespace $name }}
{{- end }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ $kind }}
metadata:
  name: {{ $name }}
  {{- if eq $kind "Role" }}
  namespace: {{ $namespace }}
  {{- end }}
  labels:
    {{- include "defragd.labels" .root | nindent 4 }}
rules:
  - apiGroups: [{{ .group | default "" | quote }}]
    resources: [{{ .resource }}]
    verbs: [{{ join ", " .verbs }}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ $kind }}Binding
metadata:
  name: {{ $name }}
  {{- if eq $kind "Role" }}
  namespace: {{ $namespace }}
  {{- end }}
  labels:
    {{- include "defragd.labels" .root | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ $kind }}
  name: {{ $name }}
subjects:
  - kind: ServiceAccount
    name: {{ include "defragd.serviceAccountName" .root }}
    namespace: {{ .root.Release.Namespace }}
{{- end -}}

{{/* Whether there is a journal: an exporter has none. */}}
{{- define "defragd.journal" -}}
{{- if or (not .Values.exporterOnly) .Values.cronJob.enabled -}}yes{{- end -}}
{{- end -}}

{{/* The pods' user, network, and the Secrets to pull their image. */}}
{{- define "defragd.podSecurity" -}}
securityContext:
  {{- $uid := include "defragd.runAsUser" . | int }}
  runAsNonRoot: {{ ne $uid 0 }}
  runAsUser: {{ $uid }}
  runAsGroup: {{ if eq $uid 0 }}0{{ else }}65532{{ end }}
  # Secrets and the journal's volume are given to this group.
  fsGroup: 65532
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- if .Values.hostNetwork }}
hostNetwork: true
# Without it, names of Services would not be resolved.
dnsPolicy: ClusterFirstWithHostNet
{{- end }}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* The container's security context. */}}
{{- define "defragd.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* Where the credentials are, and the volumes that they are on. */}}
{{- define "defragd.credentialMounts" -}}
{{- range $index, $secret := .Values.credentials.secrets }}
- {name: secret-{{ $index }}, mountPath: /etc/defragd/secrets/{{ $secret }}, readOnly: true}
{{- end }}
{{- if .Values.credentials.hostPath.enabled }}
- {name: host-pki, mountPath: /etc/defragd/host, readOnly: true}
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{- toYaml . | nindent 0 }}
{{- end }}
{{- end -}}

{{- define "defragd.credentialVolumes" -}}
{{- range $index, $secret := .Values.credentials.secrets }}
- name: secret-{{ $index }}
  secret:
    secretName: {{ $secret }}
    defaultMode: 0440
{{- end }}
{{- if .Values.credentials.hostPath.enabled }}
- name: host-pki
  hostPath:
    path: {{ .Values.credentials.hostPath.path }}
    type: Directory
{{- end }}
{{- with .Values.extraVolumes }}
{{- toYaml . | nindent 0 }}
{{- end }}
{{- end -}}

{{/* The volume of one journal. */}}
{{- define "defragd.journalVolume" -}}
- name: journal
  {{- if eq .Values.persistence.type "pvc" }}
  persistentVolumeClaim:
    claimName: {{ .Values.persistence.pvc.existingClaim | default (printf "%s-journal" (include "defragd.fullname" .)) }}
  {{- else if eq .Values.persistence.type "hostPath" }}
  hostPath:
    path: {{ .Values.persistence.hostPath.path }}
    # Must exist: what the kubelet would make belongs to root.
    type: Directory
  {{- else }}
  # THE JOURNAL IS LOST WITH THE POD: cooldown, daily cap, breaker, pauses, history, and what was accepted.
  emptyDir:
    sizeLimit: 1Gi
  {{- end }}
{{- end -}}

{{/* The egress that every pod needs. */}}
{{- define "defragd.egress" -}}
# DNS
- to:
    - namespaceSelector:
        matchLabels:
          kubernetes.io/metadata.name: kube-system
  ports:
    - {port: 53, protocol: UDP}
    - {port: 53, protocol: TCP}
# etcd's client ports
- ports:
    {{- range .Values.networkPolicy.egress.etcdPorts }}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
  {{- with .Values.networkPolicy.egress.etcdTo }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{/* Values that the chart refuses, each with what to set instead. */}}
{{- define "defragd.refusals" -}}
{{- if and (include "defragd.sharded" .) (gt (int .Values.replicas) 1) -}}
{{- fail "shards: each shard is one pod of this release; set replicas to 1" -}}
{{- end -}}
{{- if and (include "defragd.sharded" .) (not .Values.exporterOnly) (not (include "defragd.lock" .)) -}}
{{- fail "shards: while their number changes, the old and the new shard of a cluster both run; set lock.kind to etcd or kubernetes, or exporterOnly to true" -}}
{{- end -}}
{{- if include "defragd.several" . -}}
{{- if not (include "defragd.lock" .) -}}
{{- fail "replicas: without a lock, more than one defragd could defragment two members of one etcd at once; set lock.kind to etcd or kubernetes, or replicas to 1, or exporterOnly to true" -}}
{{- end -}}
{{- if or (ne .Values.persistence.type "pvc") .Values.persistence.pvc.existingClaim -}}
{{- fail "replicas: with more than one, each needs a journal of its own; use persistence.type pvc without existingClaim" -}}
{{- end -}}
{{- end -}}
{{- if not .Values.existingConfigMap -}}
{{- if not .Values.config.clusters -}}
{{- fail "config.clusters is empty: name at least one etcd cluster; deploy/helm/values/ has examples for kubeadm, kubespray, k3s and RKE2" -}}
{{- end -}}
{{- if and (eq .Values.persistence.type "emptyDir") (include "defragd.journal" .) -}}
{{- range .Values.config.clusters -}}
{{- if ne ((.policy | default dict).mode | default "observe") "observe" -}}
{{- fail (printf "persistence.type emptyDir and mode %s for cluster %s: the journal would not survive the pod; use pvc or hostPath" .policy.mode .name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and (eq .Values.persistence.type "hostPath") (include "defragd.journal" .) (not (hasKey .Values.nodeSelector "kubernetes.io/hostname")) -}}
{{- fail "persistence.type hostPath needs nodeSelector with kubernetes.io/hostname: on another node there is another journal" -}}
{{- end -}}
{{- if and .Values.cronJob.enabled (not .Values.exporterOnly) -}}
{{- fail "cronJob: the Deployment acts too, and has the journal open; set exporterOnly to true, or leave the CronJob off and give the clusters a policy.schedule" -}}
{{- end -}}
{{- if and .Values.podDisruptionBudget.enabled (lt (int .Values.replicas) 2) -}}
{{- fail "podDisruptionBudget: with one replica it could only keep its node from being drained; leave it off" -}}
{{- end -}}
{{- end -}}

{{- /* What Events are about. */}}
{{- define "defragd.podEnv" -}}
- {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
- {name: POD_NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
- {name: POD_UID, valueFrom: {fieldRef: {fieldPath: metadata.uid}}}
{{- end }}
