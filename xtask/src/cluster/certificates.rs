//! The cluster's certificate authority and everyone's certificate and kubeconfig.

use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

use crate::cache;
use crate::cluster::network::{API_PORT, NODE_ADDRESS};
use crate::cluster::{CONTEXT, NODE};

/// Who holds a certificate: file name, user, group.
const CLIENTS: [(&str, &str, &str); 5] = [
    ("admin", "kalamdb-admin", "system:masters"),
    ("controller-manager", "system:kube-controller-manager", ""),
    ("scheduler", "system:kube-scheduler", ""),
    ("proxy", "system:kube-proxy", ""),
    ("kubelet", "system:node:kalamdb-local", "system:nodes"),
];

/// Makes the authority, the servers' and clients' certificates, and a kubeconfig for each client in `folder`.
pub fn make(folder: &Path) -> Result<()> {
    let authority = authority(folder)?;
    let server = |name: &str| {
        let names = [NODE, "localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"];
        let addresses = [NODE_ADDRESS, "127.0.0.1", "10.96.0.1"];
        let names: Vec<String> = names.into_iter().chain(addresses).map(str::to_owned).collect();
        let mut params = CertificateParams::new(names)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        sign(folder, name, params, &authority)
    };
    server("apiserver")?;
    server("kubelet-server")?;
    for (name, user, group) in CLIENTS {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, user);
        if !group.is_empty() {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        sign(folder, name, params, &authority)?;
        cache::write_secret(&kubeconfig_path(folder, name), kubeconfig(folder, name))?;
    }
    let key = KeyPair::generate()?;
    cache::write(&folder.join("service-accounts.pub"), key.public_key_pem())?;
    cache::write_secret(&folder.join("service-accounts.key"), key.serialize_pem())
}

/// The kubeconfig of a client.
pub fn kubeconfig_path(folder: &Path, client: &str) -> PathBuf {
    folder.join(format!("{client}.kubeconfig"))
}

fn authority(folder: &Path) -> Result<Issuer<'static, KeyPair>> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, CONTEXT);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    let key = KeyPair::generate()?;
    cache::write(&folder.join("ca.crt"), params.self_signed(&key)?.pem())?;
    Ok(Issuer::new(params, key))
}

fn sign(folder: &Path, name: &str, mut params: CertificateParams, authority: &Issuer<'_, KeyPair>) -> Result<()> {
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, authority)?;
    cache::write(&folder.join(format!("{name}.crt")), certificate.pem())?;
    cache::write_secret(&folder.join(format!("{name}.key")), key.serialize_pem())
}

fn kubeconfig(folder: &Path, client: &str) -> String {
    let folder = folder.display();
    format!(
        "apiVersion: v1
kind: Config
clusters:
- name: {CONTEXT}
  cluster:
    server: https://{NODE_ADDRESS}:{API_PORT}
    certificate-authority: {folder}/ca.crt
users:
- name: {client}
  user:
    client-certificate: {folder}/{client}.crt
    client-key: {folder}/{client}.key
contexts:
- name: {CONTEXT}
  context: {{ cluster: {CONTEXT}, user: {client} }}
current-context: {CONTEXT}
"
    )
}
