"""Since which systemd there are the keys that a settings file or a drop-in may have."""

from __future__ import annotations

# systemd.nspawn(5) of systemd 262, "Added in version": section, version, keys.
_SETTINGS = """
Exec 226 Boot Parameters Environment User Capability DropCapability Personality MachineID
Exec 229 ProcessTwo WorkingDirectory
Exec 230 KillSignal PrivateUsers
Exec 231 NotifyReady
Exec 233 PivotRoot
Exec 235 SystemCallFilter
Exec 239 NoNewPrivileges OOMScoreAdjust CPUAffinity Hostname ResolvConf Timezone LinkJournal LimitCPU LimitFSIZE
Exec 239 LimitDATA LimitSTACK LimitCORE LimitRSS LimitNOFILE LimitAS LimitNPROC LimitMEMLOCK LimitLOCKS
Exec 239 LimitSIGPENDING LimitMSGQUEUE LimitNICE LimitRTPRIO LimitRTTIME
Exec 240 Ephemeral
Exec 248 AmbientCapability
Exec 250 SuppressSync
Exec 260 PrivateUsersDelegate
Exec 261 RestrictAddressFamilies
Files 226 ReadOnly Volatile Bind BindReadOnly TemporaryFileSystem
Files 230 PrivateUsersChown
Files 233 Overlay OverlayReadOnly
Files 242 Inaccessible
Files 249 BindUser PrivateUsersOwnership
Files 258 BindUserShell
Network 226 Private VirtualEthernet Interface MACVLAN IPVLAN Bridge Port
Network 228 VirtualEthernetExtra
Network 230 Zone
Network 259 NamespacePath
"""

# systemd.{unit,service,exec,resource-control,kill}(5) of 257, what came after 241; older keys everybody has.
_UNIT = """
Service 242 NetworkNamespacePath
Service 243 OOMPolicy NUMAPolicy NUMAMask TimeoutCleanSec
Service 244 AllowedCPUs AllowedMemoryNodes
Service 246 LogNamespace
Service 247 ManagedOOMSwap ManagedOOMMemoryPressure ProtectProc ProcSubset
Service 249 SocketBindAllow SocketBindDeny BPFProgram
Unit 249 Upholds OnSuccess PropagatesStopTo StopPropagatedFrom
Service 250 ExitType RestrictFileSystems RestrictNetworkInterfaces
Service 252 StartupAllowedCPUs StartupAllowedMemoryNodes
Service 253 OpenFile MemoryZSwapMax LogFilterPatterns
Service 254 RestartSteps RestartMaxDelaySec RestartMode MemoryPressureWatch DelegateSubgroup
Service 254 FileDescriptorStorePreserve ImportCredential MemoryKSM
Service 255 CoredumpReceive
Unit 255 SurviveFinalKillSignal
Service 256 MemoryZSwapWriteback
"""


def _table(text: str) -> dict[tuple[str, str], int]:
    rows = (line.split() for line in text.strip().splitlines())
    return {(section, key): int(version) for section, version, *keys in rows for key in keys}


SETTINGS_SINCE = _table(_SETTINGS)
"""(section, key) of a settings file -> the first systemd that has it; all there are."""

UNIT_SINCE = _table(_UNIT)
"""(section, key) of a unit -> the first systemd that has it; only newer ones."""

BIND_OPTIONS_SINCE = {"idmap": 252, "noidmap": 252, "rootidmap": 252, "owneridmap": 257}
"""Mount option of Bind= -> the first systemd seen with it."""
