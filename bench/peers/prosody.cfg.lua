-- Prosody over BOSH and over TCP with its archive: accounts, one process, messages written to files,
-- not synced.
-- @...@ is filled in by bench/servers.py.
run_as_root = true
daemonize = false
pidfile = "@FOLDER@/prosody.pid"
data_path = "@FOLDER@"
log = { error = "*console" }

modules_enabled = { "saslauth", "disco", "ping", "roster", "bosh", "mam" }
modules_disabled = { "s2s", "tls" }
c2s_ports = { @TCP_PORT@ }
c2s_interfaces = { "127.0.0.1" }
c2s_require_encryption = false
c2s_direct_tls_ports = {}
s2s_ports = {}

http_ports = { @PORT@ }
http_interfaces = { "127.0.0.1" }
https_ports = {}
consider_bosh_secure = true
allow_unencrypted_plain_auth = true
bosh_max_inactivity = 600
bosh_max_polling = 100000
http_max_buffer_size = 1048576

authentication = "internal_plain"
storage = "internal"
default_archive_policy = true
network_backend = "epoll"
network_settings = { tcp_backlog = 1024, read_timeout = 900 }

VirtualHost "localhost"
