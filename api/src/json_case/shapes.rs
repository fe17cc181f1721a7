//! The bodies of the Docker Engine API v1.44 that Skein reads. Only objects that contain further
//! objects or need their key case corrected are listed in full; user maps are [`Leaf`].

use super::Shape::{self, Leaf, List, Named, Object, Word};

const AMOUNTS: Shape = Object(&[
    ("NanoCPUs", Leaf),
    ("MemoryBytes", Leaf),
    ("Pids", Leaf),
    ("GenericResources", List(&GENERIC)),
]);

const GENERIC_RESOURCE: Shape = Object(&[("Kind", Leaf), ("Value", Leaf)]);
const GENERIC: Shape =
    Object(&[("NamedResourceSpec", GENERIC_RESOURCE), ("DiscreteResourceSpec", GENERIC_RESOURCE)]);

const HEALTH: Shape = Object(&[
    ("Test", Leaf),
    ("Interval", Leaf),
    ("Timeout", Leaf),
    ("Retries", Leaf),
    ("StartPeriod", Leaf),
    ("StartInterval", Leaf),
]);

const DRIVER: Shape = Object(&[("Name", Leaf), ("Options", Leaf)]);

const MOUNT: Shape = Object(&[
    ("Type", Word),
    ("Source", Leaf),
    ("Target", Leaf),
    ("ReadOnly", Leaf),
    ("Consistency", Leaf),
    (
        "BindOptions",
        Object(&[
            ("Propagation", Word),
            ("NonRecursive", Leaf),
            ("CreateMountpoint", Leaf),
            ("ReadOnlyNonRecursive", Leaf),
            ("ReadOnlyForceRecursive", Leaf),
        ]),
    ),
    (
        "VolumeOptions",
        Object(&[("NoCopy", Leaf), ("Labels", Leaf), ("DriverConfig", DRIVER), ("Subpath", Leaf)]),
    ),
    ("TmpfsOptions", Object(&[("SizeBytes", Leaf), ("Mode", Leaf), ("Options", Leaf)])),
    ("ClusterOptions", Leaf),
]);

const FILE: Shape = Object(&[("Name", Leaf), ("UID", Leaf), ("GID", Leaf), ("Mode", Leaf)]);
const SECRET: Shape = Object(&[("File", FILE), ("SecretID", Leaf), ("SecretName", Leaf)]);
const CONFIG: Shape =
    Object(&[("File", FILE), ("Runtime", Leaf), ("ConfigID", Leaf), ("ConfigName", Leaf)]);
const ULIMIT: Shape = Object(&[("Name", Leaf), ("Soft", Leaf), ("Hard", Leaf)]);

const PRIVILEGES: Shape = Object(&[
    ("CredentialSpec", Object(&[("Config", Leaf), ("File", Leaf), ("Registry", Leaf)])),
    (
        "SELinuxContext",
        Object(&[
            ("Disable", Leaf),
            ("User", Leaf),
            ("Role", Leaf),
            ("Type", Leaf),
            ("Level", Leaf),
        ]),
    ),
    ("Seccomp", Object(&[("Mode", Word), ("Profile", Leaf)])),
    ("AppArmor", Object(&[("Mode", Word)])),
    ("NoNewPrivileges", Leaf),
]);

static CONTAINER_SPEC: Shape = Object(&[
    ("Image", Leaf),
    ("Labels", Leaf),
    ("Command", Leaf),
    ("Args", Leaf),
    ("Hostname", Leaf),
    ("Env", Leaf),
    ("Dir", Leaf),
    ("User", Leaf),
    ("Groups", Leaf),
    ("Privileges", PRIVILEGES),
    ("Init", Leaf),
    ("StopSignal", Leaf),
    ("TTY", Leaf),
    ("OpenStdin", Leaf),
    ("ReadOnly", Leaf),
    ("Mounts", List(&MOUNT)),
    ("StopGracePeriod", Leaf),
    ("Healthcheck", HEALTH),
    ("Hosts", Leaf),
    ("DNSConfig", Object(&[("Nameservers", Leaf), ("Search", Leaf), ("Options", Leaf)])),
    ("Secrets", List(&SECRET)),
    ("Configs", List(&CONFIG)),
    ("Isolation", Word),
    ("Sysctls", Leaf),
    ("CapabilityAdd", Leaf),
    ("CapabilityDrop", Leaf),
    ("Ulimits", List(&ULIMIT)),
]);

const NETWORK_TARGET: Shape = Object(&[("Target", Leaf), ("Aliases", Leaf), ("DriverOpts", Leaf)]);

const PREFERENCE: Shape = Object(&[("Spread", Object(&[("SpreadDescriptor", Leaf)]))]);
const PLATFORM: Shape = Object(&[("Architecture", Leaf), ("OS", Leaf)]);

static TASK_SPEC: Shape = Object(&[
    ("ContainerSpec", Named(&CONTAINER_SPEC)),
    ("PluginSpec", Leaf),
    ("NetworkAttachmentSpec", Object(&[("ContainerID", Leaf)])),
    ("Resources", Object(&[("Limits", AMOUNTS), ("Reservations", AMOUNTS)])),
    (
        "RestartPolicy",
        Object(&[("Condition", Word), ("Delay", Leaf), ("MaxAttempts", Leaf), ("Window", Leaf)]),
    ),
    (
        "Placement",
        Object(&[
            ("Constraints", Leaf),
            ("Preferences", List(&PREFERENCE)),
            ("MaxReplicas", Leaf),
            ("Platforms", List(&PLATFORM)),
        ]),
    ),
    ("Networks", List(&NETWORK_TARGET)),
    ("LogDriver", DRIVER),
    ("ForceUpdate", Leaf),
    ("Runtime", Leaf),
]);

const UPDATE_CONFIG: Shape = Object(&[
    ("Parallelism", Leaf),
    ("Delay", Leaf),
    ("FailureAction", Word),
    ("Monitor", Leaf),
    ("MaxFailureRatio", Leaf),
    ("Order", Word),
]);

const PORT: Shape = Object(&[
    ("Name", Leaf),
    ("Protocol", Word),
    ("TargetPort", Leaf),
    ("PublishedPort", Leaf),
    ("PublishMode", Word),
    ("HostIP", Leaf),
]);

/// `POST /services/create`, `POST /services/{id}/update`.
pub(crate) static SERVICE_SPEC: Shape = Object(&[
    ("Name", Leaf),
    ("Labels", Leaf),
    ("TaskTemplate", Named(&TASK_SPEC)),
    (
        "Mode",
        Object(&[
            ("Replicated", Object(&[("Replicas", Leaf)])),
            ("Global", Object(&[])),
            ("ReplicatedJob", Object(&[("MaxConcurrent", Leaf), ("TotalCompletions", Leaf)])),
            ("GlobalJob", Object(&[])),
        ]),
    ),
    ("UpdateConfig", UPDATE_CONFIG),
    ("RollbackConfig", UPDATE_CONFIG),
    ("Networks", List(&NETWORK_TARGET)),
    ("EndpointSpec", Object(&[("Mode", Word), ("Ports", List(&PORT))])),
]);

const POOL: Shape =
    Object(&[("Subnet", Leaf), ("IPRange", Leaf), ("Gateway", Leaf), ("AuxiliaryAddresses", Leaf)]);

/// `POST /networks/create`.
pub(crate) static NETWORK_CREATE: Shape = Object(&[
    ("Name", Leaf),
    ("CheckDuplicate", Leaf),
    ("Driver", Leaf),
    ("Scope", Leaf),
    ("Internal", Leaf),
    ("Attachable", Leaf),
    ("Ingress", Leaf),
    ("ConfigOnly", Leaf),
    ("ConfigFrom", Object(&[("Network", Leaf)])),
    ("IPAM", Object(&[("Driver", Leaf), ("Options", Leaf), ("Config", List(&POOL))])),
    ("EnableIPv6", Leaf),
    ("EnableIPv4", Leaf),
    ("Options", Leaf),
    ("Labels", Leaf),
]);

/// `POST /nodes/{id}/update`.
pub(crate) static NODE_SPEC: Shape =
    Object(&[("Name", Leaf), ("Labels", Leaf), ("Role", Word), ("Availability", Word)]);

const EXTERNAL_CA: Shape =
    Object(&[("Protocol", Word), ("URL", Leaf), ("Options", Leaf), ("CACert", Leaf)]);

/// `POST /swarm/update`.
pub(crate) static CLUSTER_SPEC: Shape = Object(&[
    ("Name", Leaf),
    ("Labels", Leaf),
    ("Orchestration", Object(&[("TaskHistoryRetentionLimit", Leaf)])),
    (
        "Raft",
        Object(&[
            ("SnapshotInterval", Leaf),
            ("KeepOldSnapshots", Leaf),
            ("LogEntriesForSlowFollowers", Leaf),
            ("ElectionTick", Leaf),
            ("HeartbeatTick", Leaf),
        ]),
    ),
    ("Dispatcher", Object(&[("HeartbeatPeriod", Leaf)])),
    (
        "CAConfig",
        Object(&[
            ("NodeCertExpiry", Leaf),
            ("ExternalCAs", List(&EXTERNAL_CA)),
            ("SigningCACert", Leaf),
            ("SigningCAKey", Leaf),
            ("ForceRotate", Leaf),
        ]),
    ),
    ("EncryptionConfig", Object(&[("AutoLockManagers", Leaf)])),
    ("TaskDefaults", Object(&[("LogDriver", DRIVER)])),
]);

/// `POST /swarm/init`.
pub(crate) static INIT: Shape = Object(&[
    ("ListenAddr", Leaf),
    ("AdvertiseAddr", Leaf),
    ("DataPathAddr", Leaf),
    ("DataPathPort", Leaf),
    ("ForceNewCluster", Leaf),
    ("Spec", Named(&CLUSTER_SPEC)),
    ("AutoLockManagers", Leaf),
    ("Availability", Word),
    ("DefaultAddrPool", Leaf),
    ("SubnetSize", Leaf),
]);

/// `POST /swarm/join`.
pub(crate) static JOIN: Shape = Object(&[
    ("ListenAddr", Leaf),
    ("AdvertiseAddr", Leaf),
    ("DataPathAddr", Leaf),
    ("RemoteAddrs", Leaf),
    ("JoinToken", Leaf),
    ("Availability", Word),
]);

/// `POST /swarm/unlock`.
pub(crate) static UNLOCK: Shape = Object(&[("UnlockKey", Leaf)]);

#[cfg(test)]
mod tests {
    use cluster::spec::CheckedSpec;
    use serde_json::{Value, json};

    use super::super::correct;
    use super::SERVICE_SPEC;

    /// The fields of Docker's service spec, one a line.
    const FIELDS: &str =
        include_str!("../../../raft-store/cluster/testdata/docker-service-fields.txt");

    /// A spec with one field, its keys written by `key`.
    fn with(path: &str, value: Value, key: fn(&str) -> String) -> Value {
        path.rsplit('.').fold(value, |value, step| match step.strip_suffix("[]") {
            Some(name) => json!({ key(name): [value] }),
            None => json!({ key(step): value }),
        })
    }

    /// Goal: whatever the case of its key, a field is Docker's, and a spec that is checked gives it
    /// back as its client wrote it.
    /// Method: each field alone, in small letters, with each kind of value that it may have.
    #[test]
    fn each_field_reaches_the_checked_spec() {
        let values =
            [json!(7), json!(true), json!("word"), json!(["a"]), json!({ "Key": "a" }), json!({})];
        for path in FIELDS.lines().filter(|path| !path.contains("PluginPrivilege")) {
            let mut read = 0;
            for value in &values {
                let mut corrected = with(path, value.clone(), |name| name.to_ascii_lowercase());
                correct(&mut corrected, &SERVICE_SPEC);
                if !path.starts_with("TaskTemplate.PluginSpec") {
                    assert_eq!(corrected, with(path, value.clone(), str::to_owned), "{path}");
                }
                let Ok(spec) = serde_json::from_value::<CheckedSpec>(corrected.clone()) else {
                    continue;
                };
                let written = serde_json::to_value(&spec).unwrap();
                let again: CheckedSpec = serde_json::from_value(written).unwrap();
                assert_eq!(again, spec, "{path}");
                read += 1;
            }
            // Enumerations have words of their own, and there are no jobs.
            let enums = ["Spec.Mode", "Protocol", "PublishMode", "Condition", "Type"];
            let other = path.contains("Job") || enums.iter().any(|name| path.ends_with(name));
            assert!(read > 0 || other, "{path}: no value of it can be read");
        }
    }
}
