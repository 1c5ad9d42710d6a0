//! `imgtool login`: credentials for a registry, checked and kept.

use std::io::{BufRead, IsTerminal, Read, Write};
use std::path::PathBuf;

use crate::cli::Globals;
use crate::registry::{self, Options};
use crate::{Context, Error, Result, output};

/// Arguments of `login`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The user
    #[arg(long, short)]
    username: Option<String>,
    /// The password; --password-stdin does not show it to everybody on this machine
    #[arg(long, short, conflicts_with = "password_stdin")]
    password: Option<String>,
    /// Read the password from standard input
    #[arg(long)]
    password_stdin: bool,
    /// Say as whom we are logged in, and do nothing
    #[arg(long, conflicts_with_all = ["username", "password", "password_stdin"])]
    get_login: bool,
    #[command(flatten)]
    registry: Options,
    /// The registry, or part of it: HOST[:PORT][/NAMESPACE...]
    host: String,
}

/// Asks the registry whether it takes the credentials, and only then keeps them.
pub fn run(args: Args, _: &Globals) -> Result<()> {
    let key = registry::credential_key(&args.host)?;
    if args.get_login {
        let user = registry::logged_in(&key, args.registry.authfile.as_deref())?
            .ok_or_else(|| Error::not_found(format!("not logged in to {key}")))?;
        return output::print(&format!("{user}\n"));
    }
    let (user, password) = ask(&args)?;
    if user.is_empty() || password.is_empty() {
        return Err(Error::usage("the user and the password must not be empty"));
    }
    if user.contains(':') {
        return Err(Error::usage("a user's name must not contain a colon"));
    }
    let path = registry::log_in(&key, &user, &password, &args.registry)
        .wrap(|| format!("log in to {key}"))?;
    output::print(&format!("logged in to {key}; kept in {path}\n"))
}

/// The user and the password, from the options or else from standard input.
fn ask(args: &Args) -> Result<(String, String)> {
    let terminal = std::io::stdin().is_terminal();
    let user = match &args.username {
        Some(user) => user.clone(),
        None if args.password_stdin || !terminal => {
            return Err(Error::usage("name the user by --username"));
        }
        None => {
            prompt("User: ")?;
            read_line()?
        }
    };
    let password = match &args.password {
        Some(password) => password.clone(),
        None if args.password_stdin => {
            let mut text = String::new();
            std::io::stdin().lock().take(MAX_PASSWORD).read_to_string(&mut text)?;
            text.trim_end_matches(['\r', '\n']).to_owned()
        }
        None if terminal => read_hidden()?,
        None => return Err(Error::usage("give the password by --password-stdin")),
    };
    Ok((user, password))
}

/// Tokens of some clouds have several thousand characters.
const MAX_PASSWORD: u64 = 1 << 16;

fn prompt(text: &str) -> Result<()> {
    let mut err = std::io::stderr();
    write!(err, "{text}")?;
    Ok(err.flush()?)
}

fn read_line() -> Result<String> {
    let mut line = String::new();
    std::io::stdin().lock().take(MAX_PASSWORD).read_line(&mut line)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// Reads a line without showing it (termios(3), ECHO).
fn read_hidden() -> Result<String> {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    let stdin = std::io::stdin();
    let shown = tcgetattr(&stdin).wrap(|| "terminal")?;
    let mut hidden = shown.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    prompt("Password: ")?;
    tcsetattr(&stdin, OptionalActions::Flush, &hidden).wrap(|| "terminal")?;
    let line = read_line();
    tcsetattr(&stdin, OptionalActions::Flush, &shown).wrap(|| "terminal")?;
    prompt("\n")?;
    line
}

/// Arguments of `logout`.
#[derive(Debug, clap::Args)]
pub struct LogoutArgs {
    /// Forget the credentials for all registries
    #[arg(long, conflicts_with = "host")]
    all: bool,
    /// The file that login wrote [default: the one that login writes]
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
    /// The registry, or part of it, as it was given to login
    #[arg(required_unless_present = "all")]
    host: Option<String>,
}

/// Forgets credentials. That there are none is an error, since the command was then wrong.
pub fn logout(args: LogoutArgs, _: &Globals) -> Result<()> {
    let key = args.host.as_deref().map(registry::credential_key).transpose()?;
    let gone = registry::log_out(key.as_deref(), args.authfile.as_deref()).wrap(|| "log out")?;
    let line = |key: &String| format!("logged out of {key}\n");
    output::print(&gone.iter().map(line).collect::<String>())
}
