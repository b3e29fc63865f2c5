//! The second process of a subject.

use std::env;
use std::process::{Child, Command};

use ipc_channel::ipc::{self, IpcOneShotServer, IpcReceiver, IpcSender};
use serde::{Deserialize, Serialize};

use crate::Result;

/// The ends that the measuring process gets of the second one.
#[derive(Serialize, Deserialize)]
pub struct Ends<There, Back> {
    /// What is measured, there.
    pub there: There,
    /// What is measured, back.
    pub back: Back,
    /// How many messages come next.
    pub commands: IpcSender<u64>,
    /// One answer to each command: everything has come, and it was right.
    pub answers: IpcReceiver<bool>,
}

/// The second process, ended when this is dropped.
pub struct Peer(Child);

impl Peer {
    /// Takes care of a process that was started otherwise.
    pub fn new(child: Child) -> Self {
        Peer(child)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It ends by itself once its channels have; if it is killed before that, nothing is lost.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts this program again as the second process of `subject`.
pub fn start<There, Back>(subject: &str) -> Result<(Peer, Ends<There, Back>)>
where
    There: Serialize + for<'de> Deserialize<'de>,
    Back: Serialize + for<'de> Deserialize<'de>,
{
    let (server, name) = IpcOneShotServer::<Ends<There, Back>>::new()?;
    let child = Command::new(env::current_exe()?)
        .args(["--peer", subject, &name])
        .spawn()?;
    let peer = Peer(child);
    let (_receiver, ends) = server.accept()?;
    Ok((peer, ends))
}

/// In the second process: gives `there` and `back` to the measuring one.
pub fn introduce<There, Back>(
    name: &str,
    there: There,
    back: Back,
) -> Result<(IpcReceiver<u64>, IpcSender<bool>)>
where
    There: Serialize,
    Back: Serialize,
{
    let (commands, commands_here) = ipc::channel()?;
    let (answers_here, answers) = ipc::channel()?;
    IpcSender::connect(name.to_owned())?.send(Ends {
        there,
        back,
        commands,
        answers,
    })?;
    Ok((commands_here, answers_here))
}
