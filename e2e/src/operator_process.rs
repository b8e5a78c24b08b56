//! The real operator as a process of this machine, so that it can be killed and is back within milliseconds: with the rights
//! of the chart, in a namespace of its own, behind a proxy of ours. Its runs have real pods, which reach it at this machine's
//! address as a node.

use crate::{
    OPERATOR_NAMESPACE,
    api_proxy::ApiProxy,
    fixture, kubectl,
    namespace::Namespace,
    repository,
    s3_server::{BUCKET, KEY, KEY_ID, S3Server},
};
use anyhow::{Context as _, Result, ensure};
use futures::FutureExt as _;
use k8s_openapi::api::{
    apps::v1::Deployment,
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::{Node, ServiceAccount},
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DynamicObject, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use std::{
    fs::{self, File, OpenOptions},
    net::{IpAddr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    sync::{Notify, oneshot},
    task::JoinHandle,
};

/// The Deployment and the ServiceAccount of the chart's operator.
const OPERATOR: &str = "sopwith-operator";
/// The label of namespaces that belong to an operator of ours.
const MARK: &str = "sopwith.dev/e2e-operator";
/// How long a token is good.
const TOKEN_SECONDS: i64 = 3600;

/// How soon it is started again after it ended by itself.
const BACK_OFF: Duration = Duration::from_millis(200);

/// What all operator processes of a suite share.
pub struct Site {
    /// Client with the rights of the kubeconfig.
    pub client: Client,
    config: kube::Config,
    binary: PathBuf,
    runner_image: String,
    address: IpAddr,
    token: String,
    objects: Vec<DynamicObject>,
}

/// Where an operator of ours keeps reports, blobs and the ledger.
pub enum Storage<'a> {
    /// In a folder of its own.
    Folder,
    /// In this folder, which is there.
    At(&'a Path),
    /// In a server's bucket, which is asked at this URL.
    Bucket(&'a S3Server, &'a str),
}

/// An operator of one namespace. It is started again whenever it ends, as the kubelet does, and is killed when dropped.
pub struct OperatorProcess {
    /// Where it keeps reports, blobs and the ledger.
    pub storage: PathBuf,
    log: PathBuf,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
    _folder: TempDir,
}

#[derive(Default)]
struct Shared {
    /// Tells the one who waits for the process to kill it, and who then wants to hear of its death.
    killing: Mutex<Option<oneshot::Sender<()>>>,
    kill: Notify,
    starts: Mutex<u32>,
}

impl Site {
    /// Reads what the installed chart says, builds the operator, and keeps the installed one out of its namespaces.
    pub async fn open() -> Result<Self> {
        // The second call of several tests in one process finds a provider: that is fine.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let config = kube::Config::infer()
            .await
            .context("no cluster: `make cluster-up` and e2e/cluster/env.sh")?;
        let client = Client::try_from(config.clone())?;
        let site = Self {
            binary: build().await?,
            runner_image: runner_image(&client).await?,
            address: node_address(&client).await?,
            token: token(&client).await?,
            objects: rights(&client).await?,
            client,
            config,
        };
        site.keep_the_other_out().await?;
        Ok(site)
    }

    /// A proxy before the cluster's API server.
    pub async fn proxy(&self, fault: Option<crate::api_proxy::fault::Fault>) -> Result<ApiProxy> {
        ApiProxy::start(&self.config, fault).await
    }

    /// Starts an operator that serves a namespace, through a proxy that may kill it, with further arguments.
    pub async fn operator(
        &self,
        namespace: &Namespace,
        proxy: &ApiProxy,
        storage: Storage<'_>,
        further: &[&str],
    ) -> Result<OperatorProcess> {
        self.claim(namespace).await?;
        namespace.apply(self.objects_in(&namespace.name)).await?;
        let folder = tempfile::tempdir()?;
        let (storage, stores) = storage.words(folder.path(), &namespace.name)?;
        let kubeconfig = folder.path().join("kubeconfig");
        fs::write(&kubeconfig, kubeconfig_of(&proxy.url, &self.token))?;
        let log = folder.path().join("log");
        let mut command = self.command(&namespace.name, &kubeconfig)?;
        command.extend(stores);
        command.extend(further.iter().map(|word| (*word).to_owned()));
        let shared = Arc::new(Shared::default());
        let task = tokio::spawn(keep_running(command, log.clone(), shared.clone()));
        let operator = OperatorProcess {
            storage,
            log,
            shared: shared.clone(),
            task,
            _folder: folder,
        };
        proxy.kills_with(Arc::new(move || {
            let shared = shared.clone();
            async move { shared.kill().await }.boxed()
        }))?;
        Ok(operator)
    }

    fn command(&self, namespace: &str, kubeconfig: &Path) -> Result<Vec<String>> {
        // Free now and hardly taken by anybody else; it stays the same over restarts.
        let port = TcpListener::bind((self.address, 0))?.local_addr()?.port();
        let words = [
            "env".to_owned(),
            format!("KUBECONFIG={}", kubeconfig.display()),
            format!("POD_NAME={OPERATOR}-{namespace}"),
            format!("AWS_ACCESS_KEY_ID={KEY_ID}"),
            format!("AWS_SECRET_ACCESS_KEY={KEY}"),
            self.binary.display().to_string(),
            format!("--namespace={namespace}"),
            format!("--watch-namespace={namespace}"),
            format!("--runner-image={}", self.runner_image),
            format!("--advertise-address={}", self.address),
            format!("--listen={}:{port}", self.address),
            "--http=127.0.0.1:0".to_owned(),
            "--log-filter=info,sopwith_operator=debug".to_owned(),
        ];
        Ok(words.into())
    }

    fn objects_in(&self, namespace: &str) -> Vec<DynamicObject> {
        let mut objects = self.objects.clone();
        for object in &mut objects {
            object.metadata.namespace = Some(namespace.to_owned());
        }
        objects
    }

    /// Keeps the cluster's own operator from writing into the namespaces of operators of ours, by an admission policy: the token of
    /// its pod tells it from them. It stays in force; there are no such namespaces but those of tests.
    async fn keep_the_other_out(&self) -> Result<()> {
        let folder = repository().join("e2e/fixtures/host-operator");
        let folder = folder.to_str().context("a path that is no text")?;
        kubectl::kubectl(&["apply", "--server-side", "-f", folder]).await?;
        let namespace = Namespace::create(self.client.clone(), "kept-out").await?;
        self.claim(&namespace).await?;
        let begun = Instant::now();
        while !self.refuses_the_other(&namespace).await? {
            ensure!(
                begun.elapsed() < Duration::from_secs(30),
                "the admission policy e2e-host-operator is not in force"
            );
        }
        namespace.delete().await
    }

    /// Marks a namespace as one of an operator of ours.
    async fn claim(&self, namespace: &Namespace) -> Result<()> {
        let patch = Patch::Merge(json!({ "metadata": { "labels": { MARK: "host" } } }));
        Api::<k8s_openapi::api::core::v1::Namespace>::all(self.client.clone())
            .patch(&namespace.name, &PatchParams::default(), &patch)
            .await?;
        Ok(())
    }

    /// Whether the API server refuses what the cluster's own operator would write, and for that reason.
    async fn refuses_the_other(&self, namespace: &Namespace) -> Result<bool> {
        let path = format!(
            "/api/v1/namespaces/{}/configmaps?dryRun=All",
            namespace.name
        );
        let user = format!("system:serviceaccount:{OPERATOR_NAMESPACE}:{OPERATOR}");
        let request = hyper::Request::post(path)
            .header("content-type", "application/json")
            .header("impersonate-user", user)
            .header(
                "impersonate-extra-authentication.kubernetes.io%2fpod-name",
                "any",
            )
            .body(serde_json::to_vec(
                &json!({ "metadata": { "generateName": "any-" } }),
            )?)?;
        match self.client.request::<Value>(request).await {
            Ok(_) => Ok(false),
            Err(kube::Error::Api(status)) if status.message.contains("e2e-host-operator") => {
                Ok(true)
            }
            Err(error) => Err(error.into()),
        }
    }
}

impl Storage<'_> {
    /// The folder in which its objects can be looked at, and the arguments that name it.
    fn words(&self, own: &Path, prefix: &str) -> Result<(PathBuf, Vec<String>)> {
        let at = |folder: &Path| format!("--storage-url=file://{}", folder.display());
        match self {
            Self::Folder => {
                let folder = own.join("store");
                fs::create_dir(&folder)?;
                let word = at(&folder);
                Ok((folder, vec![word]))
            }
            Self::At(folder) => Ok((folder.to_path_buf(), vec![at(folder)])),
            Self::Bucket(server, url) => Ok((
                server.bucket().join(prefix),
                vec![
                    format!("--storage-url=s3://{BUCKET}/{prefix}"),
                    format!("--s3-endpoint={url}"),
                    "--s3-path-style".to_owned(),
                    "--s3-allow-http".to_owned(),
                ],
            )),
        }
    }
}

impl OperatorProcess {
    /// How often it was started.
    pub fn starts(&self) -> u32 {
        *lock(&self.shared.starts)
    }

    /// Kills it with SIGKILL, and returns when it is dead. It is started again at once.
    pub async fn kill(&self) {
        self.shared.kill().await;
    }

    /// What it logged, over all starts.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_else(|error| error.to_string())
    }

    /// The tokens of the day that its ledger has booked: the sum over all entries in the store.
    pub fn booked_tokens(&self) -> Result<u64> {
        let mut sum = 0;
        let mut folders = vec![self.storage.join("ledger")];
        while let Some(folder) = folders.pop() {
            let entries = match fs::read_dir(&folder) {
                Ok(entries) => entries,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error.into()),
            };
            for entry in entries {
                let path = entry?.path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|end| end == "json") {
                    let entry: Value = serde_json::from_slice(&fs::read(&path)?)?;
                    let at = |part: &str| entry[part]["tokens"].as_u64();
                    let (total, base) = (at("total"), at("base"));
                    sum += total.context("no total")? - base.context("no base")?;
                }
            }
        }
        Ok(sum)
    }
}

impl Drop for OperatorProcess {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    async fn kill(&self) {
        let (dead, death) = oneshot::channel();
        *lock(&self.killing) = Some(dead);
        self.kill.notify_one();
        // Whoever waits for the process is gone only when all is over.
        let _ = death.await;
    }
}

/// Starts the process, again whenever it has ended.
async fn keep_running(command: Vec<String>, log: PathBuf, shared: Arc<Shared>) {
    loop {
        let Ok(mut child) = start(&command, &log) else {
            return;
        };
        *lock(&shared.starts) += 1;
        tokio::select! {
            _ = child.wait() => tokio::time::sleep(BACK_OFF).await,
            () = shared.kill.notified() => {
                // It returns when the process is gone for good.
                let _ = child.kill().await;
                if let Some(dead) = lock(&shared.killing).take() {
                    let _ = dead.send(());
                }
            }
        }
    }
}

fn start(command: &[String], log: &Path) -> Result<Child> {
    let log: File = OpenOptions::new().create(true).append(true).open(log)?;
    let (program, args) = command.split_first().context("no command")?;
    let child = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(true)
        .spawn()?;
    Ok(child)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The operator that `SOPWITH_OPERATOR` names; else it is built.
async fn build() -> Result<PathBuf> {
    if let Some(built) = std::env::var_os("SOPWITH_OPERATOR") {
        return Ok(built.into());
    }
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let manifest = repository().join("Cargo.toml");
    let manifest = manifest.to_str().context("a path that is no text")?;
    let args = [
        "build",
        "--locked",
        "--bin",
        OPERATOR,
        "--message-format=json",
        "--manifest-path",
        manifest,
    ];
    let said = kubectl::run(&cargo, args, &[], "").await?;
    ensure!(said.code == 0, "building the operator: {}", said.all());
    let messages = said.stdout.lines().rev();
    let found = messages
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find_map(|message| message["executable"].as_str().map(PathBuf::from));
    found.context("cargo does not say where the operator is")
}

/// The image that the installed operator gives to its runs.
async fn runner_image(client: &Client) -> Result<String> {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), OPERATOR_NAMESPACE);
    let deployment = deployments.get(OPERATOR).await?;
    let containers = deployment
        .spec
        .and_then(|spec| spec.template.spec)
        .map(|pod| pod.containers)
        .unwrap_or_default();
    let mut args = containers.into_iter().filter_map(|one| one.args);
    args.find_map(|args| {
        let mut args = args.iter();
        args.find_map(|arg| arg.strip_prefix("--runner-image=").map(str::to_owned))
    })
    .context("the installed operator is told no --runner-image")
}

/// This machine's address as pods see it.
pub async fn node_address(client: &Client) -> Result<IpAddr> {
    let nodes = Api::<Node>::all(client.clone());
    let node = nodes.list(&ListParams::default()).await?.items.into_iter();
    let addresses = node
        .filter_map(|node| node.status)
        .flat_map(|status| status.addresses.unwrap_or_default());
    let mut internal = addresses.filter(|address| address.type_ == "InternalIP");
    Ok(internal.next().context("no InternalIP")?.address.parse()?)
}

/// A token of the chart's operator: its rights are those that are tested.
async fn token(client: &Client) -> Result<String> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), OPERATOR_NAMESPACE);
    let request = TokenRequest {
        spec: TokenRequestSpec {
            expiration_seconds: Some(TOKEN_SECONDS),
            ..TokenRequestSpec::default()
        },
        ..TokenRequest::default()
    };
    let made = accounts
        .create_token_request(OPERATOR, &PostParams::default(), &request)
        .await?;
    Ok(made.status.context("no token")?.token)
}

/// What the chart gives the operator in its own namespace: the Role, its binding to the chart's account, and the Service.
async fn rights(client: &Client) -> Result<Vec<DynamicObject>> {
    let version = client.apiserver_version().await?.git_version;
    let chart = repository().join("charts/sopwith");
    let chart = chart.to_str().context("a path that is no text")?;
    let args = [
        "template",
        "sopwith",
        chart,
        "--namespace",
        OPERATOR_NAMESPACE,
        "--kube-version",
        &version,
    ];
    let said = kubectl::run("helm", args, &[], "").await?;
    ensure!(said.code == 0, "helm template: {}", said.all());
    let mut objects = fixture::parse(&said.stdout)?;
    objects.retain(|object| {
        let kind = object.types.as_ref().map(|types| types.kind.as_str());
        match kind {
            Some("Role" | "RoleBinding") => object.name_any() == OPERATOR,
            Some("Service") => object.name_any() == "sopwith-gateway",
            _ => false,
        }
    });
    ensure!(objects.len() == 3, "the chart has {} of 3", objects.len());
    Ok(objects)
}

fn kubeconfig_of(server: &str, token: &str) -> String {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "proxy",
        "clusters": [{ "name": "proxy", "cluster": { "server": server } }],
        "users": [{ "name": "operator", "user": { "token": token } }],
        "contexts": [{ "name": "proxy", "context": { "cluster": "proxy", "user": "operator" } }],
    })
    .to_string()
}
