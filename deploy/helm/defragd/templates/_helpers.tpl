{{- define "defragd.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 53 | trimSuffix "-" -}}
{{- else if contains "defragd" .Release.Name -}}
{{- .Release.Name | trunc 53 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-defragd" .Release.Name | trunc 53 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* The first becomes Prometheus' job, which alerts/ calls defragd: it is not to be changed. */}}
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

{{- define "defragd.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (include "defragd.fullname" .) -}}
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

{{/* Whether several replicas may act, one at a time: then each has a name and a journal of its own. */}}
{{- define "defragd.several" -}}
{{- if and (gt (int .Values.replicas) 1) (not .Values.exporterOnly) -}}yes{{- end -}}
{{- end -}}

{{/* Whether there is a lock: what only exports has none. */}}
{{- define "defragd.lock" -}}
{{- if and (ne .Values.lock.kind "none") (not .Values.exporterOnly) -}}yes{{- end -}}
{{- end -}}

{{/* Whether the lock is made of Leases. */}}
{{- define "defragd.leases" -}}
{{- if and (include "defragd.lock" .) (eq .Values.lock.kind "kubernetes") -}}yes{{- end -}}
{{- end -}}

{{/* What must not be installed, with what to do instead. */}}
{{- define "defragd.refusals" -}}
{{- if include "defragd.several" . -}}
{{- if not (include "defragd.lock" .) -}}
{{- fail "replicas: without a lock, more than one defragd could defragment two members of one etcd at once; set lock.kind to etcd or kubernetes, or replicas to 1, or exporterOnly to true" -}}
{{- end -}}
{{- if or (ne .Values.persistence.type "pvc") .Values.persistence.pvc.existingClaim -}}
{{- fail "replicas: each of several needs a journal of its own; use persistence.type pvc without existingClaim" -}}
{{- end -}}
{{- end -}}
{{- if not .Values.existingConfigMap -}}
{{- if not .Values.config.clusters -}}
{{- fail "config.clusters is empty: name at least one etcd cluster; deploy/helm/values/ has examples for kubeadm and kubespray" -}}
{{- end -}}
{{- if and (eq .Values.persistence.type "emptyDir") (not .Values.exporterOnly) -}}
{{- range .Values.config.clusters -}}
{{- if ne ((.policy | default dict).mode | default "observe") "observe" -}}
{{- fail (printf "persistence.type emptyDir and mode %s for cluster %s: the journal would not survive the pod; use pvc or hostPath" .policy.mode .name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and (eq .Values.persistence.type "hostPath") (not .Values.exporterOnly) (not (hasKey .Values.nodeSelector "kubernetes.io/hostname")) -}}
{{- fail "persistence.type hostPath needs nodeSelector with kubernetes.io/hostname: on another node there is another journal" -}}
{{- end -}}
{{- if and .Values.podDisruptionBudget.enabled (lt (int .Values.replicas) 2) -}}
{{- fail "podDisruptionBudget: with one replica it could only keep its node from being drained; leave it off" -}}
{{- end -}}
{{- end -}}
