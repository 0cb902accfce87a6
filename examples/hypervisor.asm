# A hypervisor in 64-bit code, as small as one can be. CPU 0 launches a guest that prints through I/O
# exits; at the guest's CPUID it hands the VMCS to CPU 1, which goes on with it until the guest halts.
# {field} stands for the encoding of that VMCS field; addresses are physical and mapped one to one.

begin_cpu_0:
    mov rdi, VMXON_REGION_0
    call enter_vmx_operation
    mov ecx, 0x480                      # IA32_VMX_BASIC: revision identifier
    rdmsr
    and eax, 0x7fffffff
    mov dword ptr [VMCS_REGION], eax
    vmclear [vmcs_pointer]
    vmptrld [vmcs_pointer]
    call write_controls
    call write_fields
    call write_host_state
    vmlaunch
    jmp entry_failed

begin_cpu_1:
    mov rdi, VMXON_REGION_1
    call enter_vmx_operation
wait_for_vmcs:
    pause
    cmp byte ptr [handed_over], 0
    je wait_for_vmcs
    vmptrld [vmcs_pointer]
    call write_host_state
    mov rax, [guest_rax]
    mov rsi, [guest_rsi]
    vmlaunch                            # VMCLEAR on CPU 0 made the launch state "clear"
    jmp entry_failed

# RDI: VMXON region of this CPU
enter_vmx_operation:
    mov rax, cr4
    or rax, 0x2000                      # CR4.VMXE
    mov cr4, rax
    mov ecx, 0x480
    rdmsr
    and eax, 0x7fffffff
    mov dword ptr [rdi], eax
    push rdi
    vmxon [rsp]
    pop rdi
    jbe entry_failed
    ret

# Each control word: what must be 1 (bits 31:0 of its capability MSR), and what this hypervisor wants
write_controls:
    mov ecx, 0x48d                      # pin-based
    rdmsr
    mov edx, {pinBasedControls}
    vmwrite rdx, rax
    mov ecx, 0x48e                      # processor-based: HLT exiting, unconditional I/O exiting
    rdmsr
    or eax, 0x01000080
    mov edx, {primaryProcessorBasedControls}
    vmwrite rdx, rax
    mov ecx, 0x48f                      # VM exit: host address-space size
    rdmsr
    or eax, 0x200
    mov edx, {primaryVmExitControls}
    vmwrite rdx, rax
    mov ecx, 0x490                      # VM entry: IA-32e mode guest
    rdmsr
    or eax, 0x200
    mov edx, {vmEntryControls}
    vmwrite rdx, rax
    ret

write_fields:
    lea rsi, [fields]
next_field:
    mov rdx, [rsi]
    test rdx, rdx
    js all_written
    vmwrite rdx, [rsi + 8]
    jbe entry_failed
    add rsi, 16
    jmp next_field
all_written:
    mov rax, cr0
    mov edx, {guestCr0}
    vmwrite rdx, rax
    mov rax, cr3
    mov edx, {guestCr3}
    vmwrite rdx, rax
    mov rax, cr4
    mov edx, {guestCr4}
    vmwrite rdx, rax
    ret

# Host state is that of the CPU that executes this; its stack is the one in use
write_host_state:
    mov rax, cr0
    mov edx, {hostCr0}
    vmwrite rdx, rax
    mov rax, cr3
    mov edx, {hostCr3}
    vmwrite rdx, rax
    mov rax, cr4
    mov edx, {hostCr4}
    vmwrite rdx, rax
    lea rax, [rsp + 8]
    mov edx, {hostRsp}
    vmwrite rdx, rax
    ret

# Where every VM exit arrives; the guest's general registers are still in the CPU's
vm_exit:
    push rax
    push rcx
    push rdx
    mov edx, {exitReason}
    vmread rax, rdx
    cmp eax, 30
    je io_instruction
    cmp eax, 10
    je cpuid_instruction
    cmp eax, 12
    je hlt_instruction
    jmp entry_failed

io_instruction:
    mov rax, [rsp + 16]
    out CONSOLE, al
    call skip_instruction
    pop rdx
    pop rcx
    pop rax
    vmresume
    jmp entry_failed

cpuid_instruction:
    call skip_instruction
    pop rdx
    pop rcx
    pop rax
    mov [guest_rax], rax
    mov [guest_rsi], rsi
    vmclear [vmcs_pointer]              # writes the VMCS back to memory: CPU 1 may load it
    mov byte ptr [handed_over], 1
    hlt

hlt_instruction:
    mov ecx, 8
    lea rsi, [shutdown_text]
    mov dx, 0x8900
    rep outsb
    hlt

skip_instruction:
    mov edx, {guestRip}
    vmread rax, rdx
    mov edx, {vmExitInstructionLength}
    vmread rcx, rdx
    add rax, rcx
    mov edx, {guestRip}
    vmwrite rdx, rax
    ret

entry_failed:
    mov al, 0x21                        # '!'
    out CONSOLE, al
    mov edx, {vmInstructionError}
    vmread rax, rdx
    mov dx, 0xf4
    out dx, al
    hlt

# The guest
guest:
    lea rsi, [first_text]
    call print
    xor eax, eax
    cpuid
    lea rsi, [second_text]
    call print
    hlt
print:
    mov al, [rsi]
    test al, al
    je printed
    out CONSOLE, al
    add rsi, 1
    jmp print
printed:
    ret

    .align 16
vmcs_pointer:   .quad VMCS_REGION
guest_rax:      .quad 0
guest_rsi:      .quad 0
handed_over:    .quad 0
fields:
    .quad {guestRip}, guest
    .quad {guestRsp}, GUEST_STACK
    .quad {guestRflags}, 2
    .quad {guestDr7}, 0x400
    .quad {guestCsSelector}, 0x08
    .quad {guestCsLimit}, 0xffffffff
    .quad {guestCsAccessRights}, 0xa09b
    .quad {guestSsSelector}, 0x10
    .quad {guestSsLimit}, 0xffffffff
    .quad {guestSsAccessRights}, 0xc093
    .quad {guestDsAccessRights}, 0x10000
    .quad {guestEsAccessRights}, 0x10000
    .quad {guestFsAccessRights}, 0x10000
    .quad {guestGsAccessRights}, 0x10000
    .quad {guestLdtrAccessRights}, 0x10000
    .quad {guestTrSelector}, 0x18
    .quad {guestTrLimit}, 0x67
    .quad {guestTrAccessRights}, 0x8b
    .quad {vmcsLinkPointer}, 0xffffffffffffffff
    .quad {hostCsSelector}, 0x08
    .quad {hostSsSelector}, 0x10
    .quad {hostTrSelector}, 0x18
    .quad {hostRip}, vm_exit
    # What a VM entry or exit uses must have been written, even if it is 0 (SDM 27.11.3)
    .quad {guestEsSelector}, 0
    .quad {guestDsSelector}, 0
    .quad {guestFsSelector}, 0
    .quad {guestGsSelector}, 0
    .quad {guestLdtrSelector}, 0
    .quad {hostEsSelector}, 0
    .quad {hostDsSelector}, 0
    .quad {hostFsSelector}, 0
    .quad {hostGsSelector}, 0
    .quad {exceptionBitmap}, 0
    .quad {pageFaultErrorCodeMask}, 0
    .quad {pageFaultErrorCodeMatch}, 0
    .quad {cr3TargetCount}, 0
    .quad {vmExitMsrStoreCount}, 0
    .quad {vmExitMsrLoadCount}, 0
    .quad {vmEntryMsrLoadCount}, 0
    .quad {injectedEventIdentification}, 0
    .quad {guestEsLimit}, 0
    .quad {guestDsLimit}, 0
    .quad {guestFsLimit}, 0
    .quad {guestGsLimit}, 0
    .quad {guestLdtrLimit}, 0
    .quad {guestGdtrLimit}, 0
    .quad {guestIdtrLimit}, 0
    .quad {guestInterruptibilityState}, 0
    .quad {guestActivityState}, 0
    .quad {guestIa32SysenterCs}, 0
    .quad {hostIa32SysenterCs}, 0
    .quad {cr0GuestHostMask}, 0
    .quad {cr4GuestHostMask}, 0
    .quad {cr0ReadShadow}, 0
    .quad {cr4ReadShadow}, 0
    .quad {guestEsBase}, 0
    .quad {guestCsBase}, 0
    .quad {guestSsBase}, 0
    .quad {guestDsBase}, 0
    .quad {guestFsBase}, 0
    .quad {guestGsBase}, 0
    .quad {guestLdtrBase}, 0
    .quad {guestTrBase}, 0
    .quad {guestGdtrBase}, 0
    .quad {guestIdtrBase}, 0
    .quad {guestPendingDebugExceptions}, 0
    .quad {guestIa32SysenterEsp}, 0
    .quad {guestIa32SysenterEip}, 0
    .quad {hostFsBase}, 0
    .quad {hostGsBase}, 0
    .quad {hostTrBase}, 0
    .quad {hostGdtrBase}, 0
    .quad {hostIdtrBase}, 0
    .quad {hostIa32SysenterEsp}, 0
    .quad {hostIa32SysenterEip}, 0
    .quad 0xffffffffffffffff, 0
shutdown_text:  .ascii "Shutdown"
first_text:     .asciz "hello from the guest on CPU 0\n"
second_text:    .asciz "and on CPU 1\n"
