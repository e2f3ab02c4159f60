# Boots a disk image, runs scripts in it, and keeps what is on its disk then.

variable "source" {
  type = string
}

variable "output" {
  type = string
}

variable "name" {
  type = string
}

variable "disk_size" {
  type = string
}

variable "seed" {
  type = string
}

variable "user" {
  type = string
}

variable "key" {
  type = string
}

variable "scripts" {
  type = string
}

variable "install" {
  type = list(string)
}

variable "environment" {
  type = list(string)
}

variable "report" {
  type = string
}

variable "console" {
  type = string
}

variable "qemu" {
  type = string
}

variable "accelerator" {
  type = string
}

variable "cpu" {
  type = string
}

variable "cpus" {
  type = number
}

variable "memory" {
  type = number
}

variable "boot_timeout" {
  type = string
}

variable "headless" {
  type = bool
}

source "qemu" "image" {
  iso_url          = var.source
  iso_checksum     = "none"
  disk_image       = true
  disk_size        = var.disk_size
  disk_interface   = "virtio"
  disk_discard     = "unmap"
  disk_compression = true
  format           = "qcow2"
  output_directory = var.output
  vm_name          = var.name

  qemu_binary = var.qemu
  accelerator = var.accelerator
  cpus        = var.cpus
  memory      = var.memory
  net_device  = "virtio-net"
  headless    = var.headless
  # The seed is a disk like the other, since not every kernel for clouds knows CD-ROM drives; behind it, not to be booted.
  qemuargs = [
    ["-cpu", var.cpu],
    ["-serial", "file:${var.console}"],
    ["-blockdev", "driver=raw,node-name=seed,read-only=on,file.driver=file,file.filename=${var.seed}"],
    ["-device", "virtio-blk-pci,drive=seed,addr=0x1e"],
    ["-device", "virtio-rng-pci"],
  ]

  boot_wait            = "1s"
  ssh_username         = var.user
  ssh_private_key_file = var.key
  ssh_timeout          = var.boot_timeout
  shutdown_command     = "sudo BUILD_USER=${var.user} sh /run/build/clean-up.sh poweroff"
  shutdown_timeout     = "30m"
}

build {
  sources = ["source.qemu.image"]

  provisioner "shell" {
    inline = ["sudo install -d -m 755 -o ${var.user} /run/build"]
  }

  provisioner "file" {
    source      = "${var.scripts}/"
    destination = "/run/build"
  }

  provisioner "shell" {
    environment_vars = var.environment
    execute_command  = "chmod +x {{ .Path }}; sudo env {{ .Vars }} {{ .Path }}"
    inline           = concat(["set -e"], [for script in var.install : "sh /run/build/${script}"])
  }

  provisioner "shell" {
    inline = ["sudo sh /run/build/describe.sh >/run/build/report"]
  }

  provisioner "file" {
    direction   = "download"
    source      = "/run/build/report"
    destination = var.report
  }
}
