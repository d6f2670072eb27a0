{{/* The pod of a node, for the Deployment and for the StatefulSet. */}}
{{- define "aims.pod" -}}
metadata:
  labels:
    {{- include "aims.labels" . | nindent 4 }}
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with .Values.podAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  serviceAccountName: {{ include "aims.name" . }}
  automountServiceAccountToken: false
  # Otherwise the names of other services would appear among the settings.
  enableServiceLinks: false
  # Longer than the wait before the stop and DRAIN_SECONDS together.
  terminationGracePeriodSeconds: 30
  securityContext:
    {{- toYaml .Values.podSecurityContext | nindent 4 }}
  {{- with .Values.image.pullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  containers:
    - name: aims
      image: {{ printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) | quote }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities:
          drop: [ALL]
      env:
        - name: LISTEN_ADDR
          value: "0.0.0.0:8000"
        {{- if eq .Values.database "sqlite" }}
        - name: DATABASE_URL
          value: "sqlite:////data/aims.db"
        {{- end }}
        {{- if .Values.metrics.enabled }}
        - name: METRICS_ADDR
          value: {{ printf "0.0.0.0:%d" (int .Values.metrics.port) | quote }}
        {{- end }}
        {{- if .Values.backups.claimName }}
        - name: BACKUP_DIR
          value: /backups
        {{- end }}
        {{- range $name, $value := .Values.settings }}
        - name: {{ $name }}
          value: {{ $value | quote }}
        {{- end }}
      {{- with .Values.secretName }}
      envFrom:
        - secretRef:
            name: {{ . }}
      {{- end }}
      ports:
        - name: http
          containerPort: 8000
        {{- if .Values.metrics.enabled }}
        - name: metrics
          containerPort: {{ .Values.metrics.port }}
        {{- end }}
      # A migration may take minutes.
      startupProbe:
        httpGet: { path: /livez, port: http }
        periodSeconds: 2
        failureThreshold: 450
      # Patient, because clients can keep all connections busy for a while.
      livenessProbe:
        httpGet: { path: /livez, port: http }
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      readinessProbe:
        httpGet: { path: /readyz, port: http }
        periodSeconds: 5
        timeoutSeconds: 5
      # Until the other pods have heard that this one is stopping.
      lifecycle:
        preStop:
          sleep: { seconds: 5 }
      resources:
        {{- toYaml .Values.resources | nindent 8 }}
      volumeMounts:
        - name: data
          mountPath: /data
        - name: tmp
          mountPath: /tmp
        {{- if .Values.backups.claimName }}
        - name: backups
          mountPath: /backups
        {{- end }}
  volumes:
    - name: tmp
      emptyDir: {}
    {{- with .Values.backups.claimName }}
    - name: backups
      persistentVolumeClaim:
        claimName: {{ . }}
    {{- end }}
    {{- if eq .Values.database "postgres" }}
    - name: data
      emptyDir: {}
    {{- end }}
  {{- if eq .Values.database "postgres" }}
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "aims.selector" . | nindent 10 }}
  {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}
