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

{{/* What must not be installed, with what to do instead. */}}
{{- define "defragd.refusals" -}}
{{- if and (gt (int .Values.replicas) 1) (not .Values.exporterOnly) -}}
{{- fail "replicas: more than one defragd could defragment two members of one etcd at once, as replicas do not know of each other yet; set replicas to 1, or exporterOnly to true" -}}
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
