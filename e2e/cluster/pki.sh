#!/usr/bin/env bash
# Writes the certificates and kubeconfigs of one cluster into its state folder. They live as long as the cluster.
set -euo pipefail
# shellcheck source=e2e/cluster/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
umask 077
mkdir -p "$STATE/pki"
cd "$STATE/pki"

key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1"; }

# certificate NAME SUBJECT NAMES
certificate() {
  key "$1.key"
  openssl req -new -key "$1.key" -subj "$2" 2>/dev/null |
    openssl x509 -req -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -out "$1.crt" \
      -extfile <(printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth,clientAuth\n' "$3") 2>/dev/null
}

# kubeconfig NAME: one file, nothing beside it needed.
kubeconfig() {
  cat >"$STATE/$1.kubeconfig" <<EOF
apiVersion: v1
kind: Config
current-context: sopwith
contexts: [{name: sopwith, context: {cluster: sopwith, user: $1}}]
clusters:
- name: sopwith
  cluster:
    server: https://127.0.0.1:$API_PORT
    certificate-authority-data: $(base64 -w0 ca.crt)
users:
- name: $1
  user:
    client-certificate-data: $(base64 -w0 "$1.crt")
    client-key-data: $(base64 -w0 "$1.key")
EOF
}

key ca.key
openssl req -x509 -new -key ca.key -out ca.crt -days 30 -subj /CN=sopwith-cluster 2>/dev/null
key sa.key
openssl ec -in sa.key -pubout -out sa.pub 2>/dev/null

certificate apiserver /CN=kube-apiserver "DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local,IP:127.0.0.1,IP:$KUBERNETES_IP,IP:$NODE_IP"
certificate admin /O=system:masters/CN=admin DNS:admin
certificate kcm /CN=system:kube-controller-manager DNS:kcm
certificate scheduler /CN=system:kube-scheduler DNS:scheduler
certificate proxy /CN=system:kube-proxy DNS:proxy
certificate coredns /CN=system:coredns DNS:coredns
certificate "$NODE" "/O=system:nodes/CN=system:node:$NODE" "DNS:$NODE,IP:127.0.0.1,IP:$NODE_IP"
certificate "$SECOND_NODE" "/O=system:nodes/CN=system:node:$SECOND_NODE" "DNS:$SECOND_NODE,IP:127.0.0.1,IP:$SECOND_NODE_IP"
for user in admin kcm scheduler proxy coredns "$NODE" "$SECOND_NODE"; do kubeconfig "$user"; done
