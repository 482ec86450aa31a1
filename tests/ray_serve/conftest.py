"""Ray's patience, which is for machines with nothing else to do; it reads these as it is imported."""

from __future__ import annotations

import os

os.environ |= {
    "RAY_gcs_server_port_wait_time_s": "300",
    "RAY_worker_register_timeout_seconds": "300",
    "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "300",
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
    "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "60",
    # It would kill workers where 95 % of the machine's memory is in use, whoever has it.
    "RAY_memory_monitor_refresh_ms": "0",
}
