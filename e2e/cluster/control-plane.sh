# shellcheck shell=bash
# How the control plane's processes are started: sourced by what starts a cluster and by what starts parts of one again.
# The caller has sourced lib.sh and has the tools on its PATH.

# start NAME COMMAND...: a process of the cluster, in a session of its own, its output added to a log.
start() {
  local name=$1
  shift
  setsid "$@" >>"$STATE/log/$name.log" 2>&1 </dev/null &
}

kc() { kubectl --kubeconfig "$STATE/admin.kubeconfig" "$@"; }

etcd_and_apiserver_ready() { kc get --raw /readyz; }

start_etcd() {
  start etcd etcd --name sopwith --data-dir "$STATE/etcd" --unsafe-no-fsync --log-level warn \
    --listen-client-urls "http://127.0.0.1:$ETCD_PORT" --advertise-client-urls "http://127.0.0.1:$ETCD_PORT" \
    --listen-peer-urls "http://127.0.0.1:$((ETCD_PORT + 1))" --initial-advertise-peer-urls "http://127.0.0.1:$((ETCD_PORT + 1))" \
    --initial-cluster "sopwith=http://127.0.0.1:$((ETCD_PORT + 1))"
}

start_apiserver() {
  start apiserver kube-apiserver --etcd-servers="http://127.0.0.1:$ETCD_PORT" \
    --bind-address=0.0.0.0 --secure-port="$API_PORT" --advertise-address="$NODE_IP" \
    --tls-cert-file="$STATE/pki/apiserver.crt" --tls-private-key-file="$STATE/pki/apiserver.key" --client-ca-file="$STATE/pki/ca.crt" \
    --service-account-issuer=https://kubernetes.default.svc --service-account-key-file="$STATE/pki/sa.pub" \
    --service-account-signing-key-file="$STATE/pki/sa.key" --service-cluster-ip-range="$SERVICE_CIDR" \
    --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction \
    --kubelet-client-certificate="$STATE/pki/admin.crt" --kubelet-client-key="$STATE/pki/admin.key" \
    --kubelet-certificate-authority="$STATE/pki/ca.crt" --kubelet-preferred-address-types=InternalIP \
    --audit-policy-file="$CLUSTER_DIR/config/audit-policy.yaml" --audit-log-path="$STATE/log/audit.log"
}

start_controllers() {
  start controller-manager kube-controller-manager --kubeconfig="$STATE/kcm.kubeconfig" \
    --service-account-private-key-file="$STATE/pki/sa.key" --root-ca-file="$STATE/pki/ca.crt" --use-service-account-credentials \
    --leader-elect=false --allocate-node-cidrs --cluster-cidr="$POD_CIDR" --kube-api-qps=400 --kube-api-burst=800
  start scheduler kube-scheduler --kubeconfig="$STATE/scheduler.kubeconfig" --leader-elect=false
}
