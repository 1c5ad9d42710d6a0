//! The container's scope: starting it around a process, changing it, ending it.

use super::bus::{BUS, Bus, Connection, Refused, To, Value};
use super::properties::{Property, array, text};
use crate::error::{Context, Error, Result};
use rustbus::params::{Base, Param};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How long systemd may take for a job.
const JOB: Duration = Duration::from_secs(30);

const MANAGER: To = To {
    destination: "org.freedesktop.systemd1",
    object: "/org/freedesktop/systemd1",
    interface: "org.freedesktop.systemd1.Manager",
};
const PROPERTIES: To = To { interface: "org.freedesktop.DBus.Properties", ..MANAGER };
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";
const UNIT_EXISTS: &str = "org.freedesktop.systemd1.UnitExists";
const ALREADY_SUBSCRIBED: &str = "org.freedesktop.systemd1.AlreadySubscribed";

/// A scope, as the state file remembers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// Its name.
    pub name: String,
    /// The slice that it is in.
    pub slice: String,
    /// Where its systemd is reached.
    pub bus: Bus,
}

impl Unit {
    /// Reaches the scope's systemd.
    pub fn connect(&self) -> Result<Connection<'_>> {
        Connection::open(&self.bus)
    }

    /// Has the scope started; `properties` name its processes. Returns the job that does it. On
    /// failure there is no scope of ours.
    pub fn start(
        &self,
        connection: &mut Connection<'_>,
        properties: &[Property],
    ) -> Result<String> {
        self.try_start(connection, properties)
            .wrap(|| format!("start {} in {}", self.name, self.slice))
    }

    /// Waits until the processes are in the scope.
    pub fn await_start(&self, connection: &mut Connection<'_>, job: &str) -> Result<()> {
        await_job(connection, job, "StartTransientUnit").wrap(|| format!("start {}", self.name))
    }

    fn try_start(
        &self,
        connection: &mut Connection<'_>,
        properties: &[Property],
    ) -> Result<String> {
        listen(connection)?;
        let known = known(connection, properties)?;
        let arguments = [text(&self.name), text("replace"), known, array("(sa(sv))", Vec::new())];
        let mut answer = connection.call(MANAGER, "StartTransientUnit", &arguments)?;
        if answer.as_ref().is_err_and(|refused| refused.name == UNIT_EXISTS) {
            // It may be the failed one of a container that was.
            reset(connection, &self.name)?;
            answer = connection.call(MANAGER, "StartTransientUnit", &arguments)?;
        }
        job(answer.map_err(|refused| hint(refused).error)?)
    }

    /// Gives the scope other values, until it ends.
    pub fn set(&self, properties: &[Property]) -> Result<()> {
        if properties.is_empty() {
            return Ok(());
        }
        let mut connection = self.connect()?;
        let known = known(&mut connection, properties)?;
        let runtime = Param::Base(Base::Boolean(true));
        let answer =
            connection.call(MANAGER, "SetUnitProperties", &[text(&self.name), runtime, known])?;
        answer.map(drop).map_err(|refused| refused.error.wrap(format!("change {}", self.name)))
    }

    /// Ends whatever still runs in the scope, and the scope. One that is gone is no error: systemd
    /// takes it away by itself when its last process ends.
    pub fn stop(&self) -> Result<()> {
        self.try_stop().wrap(|| format!("stop {}", self.name))
    }

    fn try_stop(&self) -> Result<()> {
        let mut connection = self.connect()?;
        let name = text(&self.name);
        // Stopping alone would send SIGTERM and wait for 90 seconds.
        let kill = [name.clone(), text("all"), Param::Base(Base::Int32(libc::SIGKILL))];
        match connection.call(MANAGER, "KillUnit", &kill)? {
            Err(refused) if refused.name == NO_SUCH_UNIT => return Ok(()),
            // A scope without processes is as good as killed.
            _ => {}
        }
        listen(&mut connection)?;
        let stopped = connection.call(MANAGER, "StopUnit", &[name, text("replace")])?;
        match stopped {
            Err(refused) if refused.name == NO_SUCH_UNIT => return Ok(()),
            Err(refused) => return Err(refused.error),
            Ok(answer) => await_job(&mut connection, &job(answer)?, "StopUnit")?,
        }
        // systemd before 236 knows no CollectMode, and keeps a scope that failed.
        reset(&mut connection, &self.name)
    }
}

/// Has the ends of jobs told to us. To be called before the job is made.
fn listen(connection: &mut Connection<'_>) -> Result<()> {
    let rule = format!(
        "type='signal',interface='{}',member='JobRemoved',path='{}'",
        MANAGER.interface, MANAGER.object
    );
    connection.call(BUS, "AddMatch", &[text(&rule)])?.map_err(|refused| refused.error)?;
    match connection.call(MANAGER, "Subscribe", &[])? {
        Err(refused) if refused.name != ALREADY_SUBSCRIBED => Err(refused.error),
        _ => Ok(()),
    }
}

fn reset(connection: &mut Connection<'_>, name: &str) -> Result<()> {
    // A unit that is not loaded has not failed.
    connection.call(MANAGER, "ResetFailedUnit", &[text(name)]).map(drop)
}

fn hint(refused: Refused) -> Refused {
    let hint = match refused.name.as_str() {
        UNIT_EXISTS => "another container has that name, or its processes still run",
        "org.freedesktop.DBus.Error.AccessDenied"
        | "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired" => {
            "only root may make scopes of the system's; a user has a systemd of its own"
        }
        _ => return refused,
    };
    Refused { error: refused.error.wrap(hint), ..refused }
}

fn job(answer: Vec<String>) -> Result<String> {
    answer.into_iter().next().ok_or_else(|| Error::new("systemd names no job"))
}

/// Waits for the end of the job at the object path `job`.
fn await_job(connection: &mut Connection<'_>, job: &str, call: &str) -> Result<()> {
    let why = format!("{call}: the end of its job");
    let deadline = connection.deadline(&why, JOB);
    loop {
        let signal = connection.signal(&deadline)?;
        // JobRemoved: number, object path, unit, result.
        let [_, path, unit, result] = signal.arguments.as_slice() else { continue };
        if signal.name != "JobRemoved" || path != job {
            continue;
        }
        return match result.as_str() {
            "done" | "skipped" => Ok(()),
            other => Err(Error::new(format!(
                "{call}: the job for {unit} ended with {other:?} (see journalctl -u {unit})"
            ))),
        };
    }
}

/// The properties that this systemd knows, as one argument. Its version is asked only if it matters;
/// what it does not know is in the cgroup's files alone.
fn known(connection: &mut Connection<'_>, properties: &[Property]) -> Result<Value> {
    let newest = properties.iter().filter_map(|p| p.since).max();
    let version = match newest {
        None => u32::MAX,
        Some(_) => version(connection)?,
    };
    let usable = properties.iter().filter(|p| p.since.is_none_or(|since| since <= version));
    Ok(array("(sv)", usable.map(Property::argument).collect()))
}

fn version(connection: &mut Connection<'_>) -> Result<u32> {
    let arguments = [text(MANAGER.interface), text("Version")];
    let answer =
        connection.call(PROPERTIES, "Get", &arguments)?.map_err(|refused| refused.error)?;
    let said = answer.into_iter().next().unwrap_or_default();
    Ok(leading_number(&said))
}

/// `252.38-1~deb12u1` is 252, and so is `v252`.
fn leading_number(text: &str) -> u32 {
    let digits = text.trim_start_matches(|c: char| !c.is_ascii_digit());
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().unwrap_or(0)
}

/// The pid as D-Bus carries it.
pub fn pid_argument(pid: i32) -> Result<u32> {
    u32::try_from(pid).map_err(|_| Error::new(format!("{pid} is no pid")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_their_first_number() {
        for (text, version) in [("252.38-1~deb12u1", 252), ("v257", 257), ("239 (x)", 239), ("", 0)]
        {
            assert_eq!(leading_number(text), version, "{text}");
        }
    }

    #[test]
    fn the_state_file_keeps_a_unit() {
        let bus = Bus { user: true, address: "unix:path=/b".into() };
        let unit = Unit { name: "a.scope".into(), slice: "s.slice".into(), bus };
        let text = serde_json::to_string(&unit).unwrap();
        assert_eq!(serde_json::from_str::<Unit>(&text).unwrap(), unit);
    }

    #[test]
    fn numbers_are_pids() {
        assert_eq!(pid_argument(7).unwrap(), 7);
        assert!(pid_argument(-1).is_err());
    }
}
