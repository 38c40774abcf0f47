//! What a cluster has beyond its components: a default storage class and DNS.

use std::time::Duration;

use anyhow::Result;

use crate::cluster::{Cluster, STORAGE_CLASS};
use crate::images::COREDNS;
use crate::interruption::wait_until;

/// Applies them and waits until names resolve.
pub fn install(cluster: &Cluster) -> Result<()> {
    let ready = || Ok(cluster.kubectl().args(["get", "node", crate::cluster::NODE]).output().is_ok());
    wait_until("the node to register", Duration::from_secs(60), ready)?;
    cluster.kubectl().args(["apply", "--server-side", "--force-conflicts", "-f", "-"]).input(manifests()).output()?;
    for what in
        [["wait", "--for=condition=Ready", "node", "--all"], ["rollout", "status", "-n=kube-system", "deploy/coredns"]]
    {
        cluster.kubectl().args(what).arg("--timeout=120s").output()?;
    }
    Ok(())
}

fn manifests() -> String {
    format!(
        r#"apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata:
  name: {STORAGE_CLASS}
  annotations: {{ storageclass.kubernetes.io/is-default-class: "true" }}
provisioner: kalamdb.io/local
allowVolumeExpansion: true
---
apiVersion: v1
kind: ServiceAccount
metadata: {{ name: coredns, namespace: kube-system }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {{ name: "system:coredns" }}
rules:
- {{ apiGroups: [""], resources: [endpoints, services, pods, namespaces], verbs: [list, watch] }}
- {{ apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch] }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {{ name: "system:coredns" }}
roleRef: {{ apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:coredns" }}
subjects:
- {{ kind: ServiceAccount, name: coredns, namespace: kube-system }}
---
apiVersion: v1
kind: ConfigMap
metadata: {{ name: coredns, namespace: kube-system }}
data:
  Corefile: |
    .:5353 {{
        errors
        health :8080
        ready :8181
        kubernetes cluster.local in-addr.arpa {{
            pods insecure
            ttl 5
        }}
    }}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{ name: coredns, namespace: kube-system, labels: {{ k8s-app: kube-dns }} }}
spec:
  replicas: 1
  selector: {{ matchLabels: {{ k8s-app: kube-dns }} }}
  template:
    metadata: {{ labels: {{ k8s-app: kube-dns }} }}
    spec:
      serviceAccountName: coredns
      priorityClassName: system-cluster-critical
      dnsPolicy: Default
      containers:
      - name: coredns
        image: {COREDNS}
        imagePullPolicy: Never
        args: ["-conf", "/etc/coredns/Corefile"]
        ports: [{{ containerPort: 5353, protocol: UDP }}, {{ containerPort: 5353, protocol: TCP }}]
        readinessProbe: {{ httpGet: {{ path: /ready, port: 8181 }}, periodSeconds: 1 }}
        volumeMounts: [{{ name: configuration, mountPath: /etc/coredns }}]
      volumes: [{{ name: configuration, configMap: {{ name: coredns }} }}]
---
apiVersion: v1
kind: Service
metadata: {{ name: kube-dns, namespace: kube-system, labels: {{ k8s-app: kube-dns }} }}
spec:
  clusterIP: 10.96.0.10
  selector: {{ k8s-app: kube-dns }}
  ports:
  - {{ name: dns, port: 53, targetPort: 5353, protocol: UDP }}
  - {{ name: dns-tcp, port: 53, targetPort: 5353, protocol: TCP }}
"#
    )
}
