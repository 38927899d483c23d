{{- define "cilium.image" -}}
{{- if .override }}{{ .override }}{{ else }}{{ .repository }}:{{ .tag }}{{ end -}}
{{- end }}

{{- define "cilium.apiServer" -}}
{{- with .Values.k8sServiceHost }}
- name: KUBERNETES_SERVICE_HOST
  value: {{ . | quote }}
{{- end }}
{{- with .Values.k8sServicePort }}
- name: KUBERNETES_SERVICE_PORT
  value: {{ . | quote }}
{{- end }}
{{- end }}

{{- define "cilium.validate" -}}
{{- if .Values.hubble.enabled }}{{ fail "hubble.enabled: this version serves no flows; set it to false" }}{{ end }}
{{- if not (has .Values.routingMode (list "tunnel" "native")) }}{{ fail (printf "routingMode: %q is neither tunnel nor native" .Values.routingMode) }}{{ end }}
{{- if ne .Values.tunnelProtocol "vxlan" }}{{ fail (printf "tunnelProtocol: %q is not offered; use vxlan" .Values.tunnelProtocol) }}{{ end }}
{{- if not (has .Values.ipam.mode (list "kubernetes" "multi-pool")) }}{{ fail (printf "ipam.mode: %q is not offered; use kubernetes, or multi-pool" .Values.ipam.mode) }}{{ end }}
{{- if not (has .Values.policyEnforcementMode (list "default" "always" "never")) }}{{ fail (printf "policyEnforcementMode: %q is none of default, always, never" .Values.policyEnforcementMode) }}{{ end }}
{{- if not (has .Values.dnsProxy.dnsRejectResponseCode (list "refused" "nameError")) }}{{ fail (printf "dnsProxy.dnsRejectResponseCode: %q is neither refused nor nameError" .Values.dnsProxy.dnsRejectResponseCode) }}{{ end }}
{{- if not (has .Values.loadBalancer.algorithm (list "random" "maglev")) }}{{ fail (printf "loadBalancer.algorithm: %q is neither random nor maglev" .Values.loadBalancer.algorithm) }}{{ end }}
{{- if not (has .Values.loadBalancer.mode (list "snat" "dsr" "hybrid")) }}{{ fail (printf "loadBalancer.mode: %q is none of snat, dsr, hybrid" .Values.loadBalancer.mode) }}{{ end }}
{{- if ne .Values.loadBalancer.dsrDispatch "opt" }}{{ fail (printf "loadBalancer.dsrDispatch: %q: only opt is supported" .Values.loadBalancer.dsrDispatch) }}{{ end }}
{{- if not (has .Values.loadBalancer.acceleration (list "disabled" "native" "best-effort" "testing-only")) }}{{ fail (printf "loadBalancer.acceleration: %q is none of disabled, native, best-effort, testing-only" .Values.loadBalancer.acceleration) }}{{ end }}
{{- if not (has (int .Values.maglev.tableSize) (list 251 509 1021 2039 4093 8191 16381 32749 65521 131071)) }}{{ fail (printf "maglev.tableSize: %v is none of 251, 509, 1021, 2039, 4093, 8191, 16381, 32749, 65521, 131071" .Values.maglev.tableSize) }}{{ end }}
{{- if not (has .Values.defaultLBServiceIPAM (list "lbipam" "none")) }}{{ fail (printf "defaultLBServiceIPAM: %q is not offered; use lbipam, or none" .Values.defaultLBServiceIPAM) }}{{ end }}
{{- if not (has .Values.bgpControlPlane.routerIDAllocation.mode (list "default" "ip-pool")) }}{{ fail (printf "bgpControlPlane.routerIDAllocation.mode: %q is neither default nor ip-pool" .Values.bgpControlPlane.routerIDAllocation.mode) }}{{ end }}
{{- if not (has .Values.l2announcements.mode (list "heartbeat" "lease")) }}{{ fail (printf "l2announcements.mode: %q is neither heartbeat nor lease" .Values.l2announcements.mode) }}{{ end }}
{{- if not (or .Values.ipv4.enabled .Values.ipv6.enabled) }}{{ fail "ipv4.enabled, ipv6.enabled: one of them must be true" }}{{ end }}
{{- end }}
