use crate::failure::Failure;

/// `CNI_COMMAND`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Add,
    Del,
    Check,
    Gc,
    Status,
    Version,
}

/// The command that the environment asks for.
pub(crate) fn command(variable: &impl Fn(&str) -> Option<String>) -> Result<Command, Failure> {
    match variable("CNI_COMMAND").as_deref() {
        Some("ADD") => Ok(Command::Add),
        Some("DEL") => Ok(Command::Del),
        Some("CHECK") => Ok(Command::Check),
        Some("GC") => Ok(Command::Gc),
        Some("STATUS") => Ok(Command::Status),
        Some("VERSION") => Ok(Command::Version),
        other => {
            let found = other.unwrap_or("not set");
            Err(Failure::variable(
                "CNI_COMMAND",
                format!("it is {found}; this program is run by a container runtime"),
            ))
        }
    }
}

/// What a command is about. Empty where the command needs none.
#[derive(Clone, Debug, Default)]
pub(crate) struct Arguments {
    pub(crate) container: String,
    pub(crate) device: String,
    pub(crate) netns: String,
    pub(crate) namespace: String,
    pub(crate) pod: String,
    pub(crate) uid: String,
}

impl Arguments {
    pub(crate) fn read(
        command: Command,
        variable: &impl Fn(&str) -> Option<String>,
    ) -> Result<Self, Failure> {
        let mut found = Self::default();
        if matches!(command, Command::Gc | Command::Status | Command::Version) {
            return Ok(found);
        }
        found.container = checked(variable, "CNI_CONTAINERID", is_container_id)?;
        found.device = checked(variable, "CNI_IFNAME", is_device_name)?;
        found.netns = variable("CNI_NETNS").unwrap_or_default();
        if found.netns.is_empty() && command != Command::Del {
            return Err(Failure::variable("CNI_NETNS", "it is not set"));
        }
        let extra = variable("CNI_ARGS").unwrap_or_default();
        for (name, value) in extra.split(';').filter_map(|pair| pair.split_once('=')) {
            match name {
                "K8S_POD_NAMESPACE" => value.clone_into(&mut found.namespace),
                "K8S_POD_NAME" => value.clone_into(&mut found.pod),
                "K8S_POD_UID" => value.clone_into(&mut found.uid),
                _ => {}
            }
        }
        if command == Command::Add {
            found.check_pod()?;
        }
        Ok(found)
    }

    fn check_pod(&self) -> Result<(), Failure> {
        let is_name = |text: &str| {
            !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'))
        };
        let uid = self.uid.is_empty() || is_name(&self.uid);
        if is_name(&self.namespace) && is_name(&self.pod) && uid {
            return Ok(());
        }
        let details = format!(
            "it names pod {:?} in namespace {:?} with UID {:?}; K8S_POD_NAME and K8S_POD_NAMESPACE are needed",
            self.pod, self.namespace, self.uid
        );
        Err(Failure::variable("CNI_ARGS", details))
    }

    /// What names the attachment over its life.
    pub(crate) fn attachment(&self) -> String {
        attachment(&self.container, &self.device)
    }
}

/// What names an attachment over its life, as the agent knows it.
pub(crate) fn attachment(container: &str, device: &str) -> String {
    format!("{container}:{device}")
}

fn checked(
    variable: &impl Fn(&str) -> Option<String>,
    name: &str,
    valid: fn(&str) -> bool,
) -> Result<String, Failure> {
    let value = variable(name).unwrap_or_default();
    if valid(&value) { Ok(value) } else { Err(Failure::variable(name, format!("it is {value:?}"))) }
}

/// CNI specification, section "Parameters": alphanumeric first, then also `_`, `.` and `-`.
fn is_container_id(text: &str) -> bool {
    let rest = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    text.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric()) && text.bytes().all(rest)
}

/// What the kernel takes for a name of a device.
fn is_device_name(text: &str) -> bool {
    let bad = |byte: u8| byte.is_ascii_whitespace() || matches!(byte, b'/' | b':' | 0);
    (1..16).contains(&text.len()) && text != "." && text != ".." && !text.bytes().any(bad)
}
